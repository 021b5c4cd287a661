// The camera page: a snapshot, or the live view. The camera starts when somebody
// presses Start, and stops as soon as it is not needed: after a snapshot, when the
// page is hidden or left, and on Stop. Without this file the form takes a photo with
// the device's own camera.

import {
  NoAnswer,
  PhotoRefused,
  renewPage,
  send,
  SILENT_WORDS,
} from "../upload/transfer.js";
import { Countdown } from "./countdown.js";
import { CameraProblem, describe, listCameras, openCamera, stopCamera } from "./devices.js";
import { Follow } from "./follow.js";
import { Shot } from "./shot.js";
import {
  emptyWords,
  form,
  hint,
  input,
  modes,
  parts,
  render,
  root,
  say,
  showProblem,
  takeShape,
} from "./view.js";
import { HIDDEN_WORDS, PROBLEMS, troubleWords } from "./words.js";

/** "off", "starting", "on", "counting", "shot" or "sending". */
let phase = "off";
let mode = "snapshot";
let stream = null;
let camera = { deviceId: "", isFront: true };
/** Which Start is the latest: an earlier one that comes late is void. */
let attempt = 0;
let cameras = [];

const liveView = new Follow();
const countdown = new Countdown();
const shot = new Shot();

function refresh() {
  render({
    phase,
    mode,
    isFront: camera.isFront,
    hasChoice: cameras.length > 1,
    shotIsChosen: shot.isChosen,
  });
}

// --- The camera -----------------------------------------------------------------

async function start(wish = { deviceId: camera.deviceId }) {
  attempt += 1;
  const mine = attempt;
  release();
  shot.forget();
  showProblem("", "");
  emptyWords("Your browser asks whether it may use the camera. Choose “Allow”.");
  phase = "starting";
  refresh();
  parts.cancel.focus();
  let opened;
  try {
    opened = await openCamera(wish);
    if (mine !== attempt) {
      stopCamera(opened);
      return;
    }
    stream = opened;
    opened.getVideoTracks()[0].addEventListener("ended", () => {
      if (stream === opened) {
        refuse("ended");
      }
    });
    parts.video.srcObject = opened;
    await parts.video.play();
    cameras = await listCameras();
  } catch (error) {
    if (mine === attempt) {
      refuse(error instanceof CameraProblem ? error.kind : "broken");
    }
    return;
  }
  if (mine !== attempt) {
    return;
  }
  camera = describe(opened);
  listChoices();
  begin();
}

/** The camera runs: on with what the mode is for. */
function begin() {
  phase = "on";
  hint("");
  parts.rate.textContent = "";
  refresh();
  if (mode === "live") {
    liveView.start({ mirrored: camera.isFront });
    parts.moment.focus();
    say("The live view is on.");
  } else {
    parts.shutter.focus();
    say("The camera is on.");
  }
}

/** Give the camera back, and everything that hangs on it. */
function release() {
  countdown.stop();
  liveView.stop();
  stopCamera(stream);
  stream = null;
  parts.video.srcObject = null;
}

function turnOff(words = "The camera is off", sign = "camera") {
  attempt += 1;
  release();
  phase = "off";
  emptyWords(words, sign);
  parts["start-words"].textContent = "Start camera";
  refresh();
  say(words);
}

function refuse(kind) {
  attempt += 1;
  release();
  phase = "off";
  if (kind === "gone" || kind === "ended") {
    camera = { deviceId: "", isFront: true };
  }
  emptyWords("The camera is off", "camera-off");
  parts["start-words"].textContent = "Try again";
  refresh();
  showProblem(...PROBLEMS[kind]);
  parts.start.focus();
}

function listChoices() {
  parts.choices.replaceChildren(
    ...cameras.map(({ deviceId, name }) => {
      const isThis = deviceId === camera.deviceId;
      return new Option(name, deviceId, isThis, isThis);
    }),
  );
}

function otherCamera() {
  const here = cameras.findIndex(({ deviceId }) => deviceId === camera.deviceId);
  start({ deviceId: cameras[(here + 1) % cameras.length].deviceId });
}

// --- Snapshot -------------------------------------------------------------------

function shutter() {
  if (phase === "counting") {
    countdown.stop();
    phase = "on";
    refresh();
    say("The countdown was cancelled.");
  } else if (countdown.isWanted) {
    phase = "counting";
    refresh();
    countdown.start(takeShot);
  } else {
    takeShot();
  }
}

async function takeShot() {
  const mine = attempt;
  let file;
  try {
    file = await shot.grab();
  } catch {
    if (mine === attempt) {
      refuse("broken");
    }
    return;
  }
  if (mine === attempt) {
    review(file);
    say("The photo is taken and the camera is off. Use it, or take another.");
  }
}

/** A photo is there, from the camera or a file: look at it before it is sent. */
function review(file, { isChosen = false } = {}) {
  attempt += 1;
  release();
  mayHaveArrived = false;
  shot.keep(file, { isChosen });
  showProblem("", "");
  phase = "shot";
  refresh();
  parts.use.focus();
}

/** What stops the photo that is under way, if one is. */
let sending = null;
/** All of the photo was sent in an earlier try, which got no answer. */
let mayHaveArrived = false;

/** Whether all of the photo was sent, now or in an earlier try. */
function isAllSent() {
  const isNow = phase === "sending" && parts.progress.value === parts.progress.max;
  return isNow || mayHaveArrived;
}

async function sendShot() {
  mayHaveArrived = isAllSent();
  sending?.abort();
  const controller = new AbortController();
  sending = controller;
  phase = "sending";
  parts.progress.value = 0;
  showProblem("", "");
  refresh();
  say("Sending the photo.");
  try {
    const address = await send(form, {
      signal: controller.signal,
      onProgress: (percent) => {
        parts.progress.value = percent;
      },
      onSilence: () => {
        showProblem("No answer yet.", SILENT_WORDS);
        parts.use.disabled = false;
      },
    });
    location.assign(address);
  } catch (error) {
    if (controller.signal.aborted) {
      return;
    }
    if (error instanceof NoAnswer) {
      mayHaveArrived = isAllSent();
    } else if (error instanceof PhotoRefused) {
      mayHaveArrived = false;
    }
    phase = "shot";
    refresh();
    const title = mayHaveArrived
      ? "It is not known whether the photo arrived."
      : "The photo was not taken in.";
    showProblem(title, error.message);
    parts.use.focus();
  }
}

// --- Live view ------------------------------------------------------------------

/** The present moment, in the camera's full size, is stored like any photo. */
async function storeMoment() {
  const mine = attempt;
  let file;
  try {
    file = await shot.grab();
  } catch {
    if (mine === attempt) {
      hint(troubleWords("dark", 0));
    }
    return;
  }
  if (mine === attempt) {
    review(file);
    await sendShot();
  }
}

// --- What people do -------------------------------------------------------------

// Buttons take each other's place: the second click of a double one would press the
// next of them, and what it has started would be cancelled at once.
root.addEventListener(
  "click",
  (event) => {
    if (event.detail > 1 && event.target.closest("button")) {
      event.stopPropagation();
      event.preventDefault();
    }
  },
  { capture: true },
);

parts.start.addEventListener("click", () => start());
parts.video.addEventListener("resize", takeShape);
parts.cancel.addEventListener("click", () => {
  turnOff();
  parts.start.focus();
});
parts.stop.addEventListener("click", () => {
  turnOff();
  parts.start.focus();
});
parts.shutter.addEventListener("click", shutter);
parts.moment.addEventListener("click", storeMoment);
parts.retake.addEventListener("click", () => {
  if (shot.isChosen) {
    shot.forget();
    turnOff();
    input.focus();
  } else {
    start();
  }
});
parts.flip.addEventListener("click", otherCamera);
parts.choices.addEventListener("change", () => start({ deviceId: parts.choices.value }));

input.addEventListener("change", () => {
  if (input.files.length) {
    review(input.files[0], { isChosen: true });
    say("The photo is chosen. Use it, or take another.");
  }
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  sendShot();
});

for (const choice of modes) {
  choice.addEventListener("change", () => {
    mode = choice.value;
    history.replaceState(null, "", mode === "live" ? "#live" : "#snapshot");
    showProblem("", "");
    if (stream) {
      countdown.stop();
      liveView.stop();
      begin();
      choice.focus();
    } else {
      shot.forget();
      turnOff();
    }
  });
}

// Nobody looks: nothing may be seen. What was taken already stays to be decided on.
function leave() {
  if (stream || phase === "starting") {
    turnOff(HIDDEN_WORDS);
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    leave();
  }
});
addEventListener("pagehide", leave);

addEventListener("pageshow", (event) => {
  if (event.persisted) {
    renewPage(form);
    shot.forget();
    turnOff();
  }
});

mode = location.hash === "#live" ? "live" : "snapshot";
refresh();
