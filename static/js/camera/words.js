// What the camera page says. Every sentence about a problem says what to do.

export const EMOTIONS = ["happy", "sad", "surprise", "neutral"];

export const EMOTION_WORDS = {
  happy: "Happy",
  sad: "Sad",
  surprise: "Surprised",
  neutral: "Neutral",
};

const OTHER_WAY = "Or take or choose a photo with the button below.";

/** Title and help for each kind of CameraProblem. */
export const PROBLEMS = {
  refused: [
    "The camera was not allowed.",
    `Press “Try again” and choose “Allow” when your browser asks. ${OTHER_WAY}`,
  ],
  blocked: [
    "Your browser blocks the camera on this site.",
    "Click the icon left of the address, allow the camera, and press “Try again”. " +
      `On a phone this stands in the site’s settings. ${OTHER_WAY}`,
  ],
  missing: [
    "No camera was found.",
    `Plug one in, or open its cover, and press “Try again”. ${OTHER_WAY}`,
  ],
  gone: [
    "That camera is not there any more.",
    `Press “Try again” to use another one. ${OTHER_WAY}`,
  ],
  busy: [
    "The camera is busy.",
    "Another program or tab is using it. Close that one and press “Try again”. " +
      OTHER_WAY,
  ],
  silent: [
    "The camera did not answer.",
    `Look for your browser’s question and choose “Allow”, then try again. ${OTHER_WAY}`,
  ],
  insecure: [
    "This page was opened without encryption, where browsers give no camera.",
    `Open it with https:// at the front of the address. ${OTHER_WAY}`,
  ],
  unsupported: [
    "This browser gives pages no camera.",
    `Use a current version of Firefox, Chrome, Edge or Safari. ${OTHER_WAY}`,
  ],
  ended: [
    "The camera has stopped.",
    `It was unplugged, or another program took it. Press “Try again”. ${OTHER_WAY}`,
  ],
  broken: ["The camera could not be started.", `Press “Try again”. ${OTHER_WAY}`],
};

export const HIDDEN_WORDS = "Stopped while the page was hidden";

/** What is in the way of the live view, and for how long it waits. */
export function troubleWords(kind, seconds) {
  const rounded = Math.max(1, Math.round(seconds));
  const wait = `${rounded} second${rounded === 1 ? "" : "s"}`;
  return {
    busy: `The site needs a moment. Going on in ${wait}.`,
    away: `The site cannot be reached. Trying again in ${wait}.`,
    refused: "The site refuses the frames. Please reload the page.",
    dark: "Waiting for the camera’s picture.",
  }[kind];
}

/** A probability for people, as on the result page: nothing is certain. */
export function percentWords(probability) {
  const percent = Math.round(100 * probability);
  if (percent >= 100) {
    return "> 99 %";
  }
  return percent ? `${percent} %` : "< 1 %";
}

/** "happy, 87 %", "not sure, leaning to sad, 40 %". */
export function faceWords(track) {
  const word = EMOTION_WORDS[track.label].toLowerCase();
  const percent = percentWords(track.confidence);
  return track.notSure
    ? `not sure, leaning to ${word}, ${percent}`
    : `${word}, ${percent}`;
}
