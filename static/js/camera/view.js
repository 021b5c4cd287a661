// What is seen of the camera page, all in one place. It keeps nothing in mind.

export const root = document.querySelector("#camera");
export const icons = root.dataset.icons;
const find = (name) => root.querySelector(`[data-${name}]`);
export const form = find("form");
export const input = form.querySelector("input[type=file]");
export const modes = [...root.querySelectorAll("input[name=mode]")];
export const parts = Object.fromEntries(
  [
    ...["problem", "problem-title", "problem-help", "status", "before", "video"],
    ...["overlay", "shot", "count", "pills", "rate", "hint", "empty", "empty-title"],
    ...["start", "start-words", "cancel", "faces", "nobody", "list", "more"],
    ...["snapshot-controls", "shutter", "shutter-words", "countdown", "choice"],
    ...["camera-controls", "choices", "flip", "stop", "picker", "allow", "use"],
    ...["moment", "retake", "retake-words", "progress", "sign"],
  ].map((name) => [name, find(name)]),
);

/**
 * Show what belongs to where the page is, and hide the rest.
 * @param {{
 *   phase: "off" | "starting" | "on" | "counting" | "shot" | "sending",
 *   mode: "snapshot" | "live",
 *   isFront: boolean,
 *   hasChoice: boolean,
 *   shotIsChosen: boolean,
 * }} state `isFront` of the camera, `hasChoice` where there are several
 */
export function render({ phase, mode, isFront, hasChoice, shotIsChosen }) {
  root.dataset.phase = phase;
  root.dataset.mode = mode;
  const isOn = phase === "on" || phase === "counting";
  const isLive = isOn && mode === "live";
  const hasShot = phase === "shot" || phase === "sending";
  show(parts.before, phase === "off" || phase === "starting");
  show(parts.video, isOn);
  parts.video.classList.toggle("is-mirrored", isFront);
  show(parts.overlay, isLive);
  show(parts.pills, isLive);
  show(parts.shot, hasShot);
  show(parts.count, phase === "counting");
  show(parts.empty, phase === "off" || phase === "starting");
  show(parts.start, phase === "off");
  show(parts.cancel, phase === "starting");
  show(parts.faces, isLive);
  show(parts["snapshot-controls"], isOn && mode === "snapshot");
  show(parts["camera-controls"], phase === "on");
  show(parts.choice, hasChoice);
  show(parts.flip, hasChoice);
  show(parts.picker, phase === "off");
  show(parts.allow, hasShot || isLive);
  show(parts.use, hasShot);
  show(parts.moment, isLive);
  show(parts.retake, hasShot);
  show(parts.progress, phase === "sending");
  for (const button of [parts.use, parts.retake]) {
    button.disabled = phase === "sending";
  }
  for (const choice of modes) {
    choice.disabled = phase === "sending";
    choice.checked = choice.value === mode;
  }
  for (const line of root.querySelectorAll("[data-for]")) {
    show(line, line.dataset.for === mode);
  }
  parts.shutter.classList.toggle("button-quiet", phase === "counting");
  parts["shutter-words"].textContent =
    phase === "counting" ? "Cancel the countdown" : "Take the photo";
  parts["retake-words"].textContent = shotIsChosen ? "Another photo" : "Retake";
}

export function show(node, visible) {
  // `hidden` is no property of SVG elements in every browser.
  node.toggleAttribute("hidden", !visible);
}

export function say(words) {
  parts.status.textContent = words;
}

export function hint(words) {
  parts.hint.textContent = words;
  show(parts.hint, words !== "");
}

export function showProblem(title, help) {
  parts["problem-title"].textContent = title;
  parts["problem-help"].textContent = help;
  show(parts.problem, title !== "");
}

export function emptyWords(title, sign = "camera") {
  parts["empty-title"].textContent = title;
  parts.sign.setAttribute("href", `${icons}#${sign}`);
}

// The frame takes the shape of the picture, so that little of it is empty.
export function takeShape() {
  const ratio = parts.video.videoWidth / parts.video.videoHeight;
  if (ratio) {
    const shape = ratio > 1.5 ? "wide" : ratio < 1 ? "tall" : "normal";
    find("viewfinder").dataset.shape = shape;
  }
}
