// The drop zone: choose, drop or paste photos, see them, and they are on their way.
// Without this file the form still works: choose, then press the button.

import { limitsOf, refusalOf, sizeWords } from "./upload/rules.js";
import {
  NoAnswer,
  NotNow,
  PhotoRefused,
  renewPage,
  send,
  SILENT_WORDS,
} from "./upload/transfer.js";

const form = document.querySelector("#upload");
const find = (name) => form.querySelector(`[data-${name}]`);
const input = form.querySelector("input[type=file]");
const limits = limitsOf(form);
const refusal = document.querySelector("#refusal");
const arrived = document.querySelector("#arrived");
const parts = {
  zone: find("dropzone"),
  preview: find("preview"),
  image: find("preview-image"),
  icon: find("preview-icon"),
  name: find("preview-name"),
  state: find("preview-state"),
  progress: find("progress"),
  status: find("status"),
  cancel: find("cancel"),
  again: find("again"),
};

/** What stops the upload that is under way, if one is. */
let sending = null;
/** All that is chosen was sent in an earlier try, which got no answer. */
let mayHaveArrived = false;

/** "idle", "dragging", "sending" or "refused": the zone's face follows. */
function setState(state) {
  parts.zone.dataset.state = state;
}

function say(words) {
  parts.status.textContent = words;
}

function showRefusal(words) {
  refusal.querySelector("[data-refusal]").textContent = words;
  refusal.hidden = !words;
}

/** Whether all that is chosen was sent, now or in an earlier try: the site may take it
 * in, whatever is cancelled here. */
function isAllSent() {
  const isNow = sending !== null && parts.progress.value === parts.progress.max;
  return isNow || mayHaveArrived;
}

function showArrived(visible) {
  arrived.hidden = !visible;
}

function nameOf(files) {
  return files.length === 1 ? files[0].name : `${files.length} files`;
}

function showPreview(files) {
  hidePreview();
  parts.name.textContent = nameOf(files);
  parts.preview.hidden = false;
  const address = URL.createObjectURL(files[0]);
  parts.image.src = address;
  // Not every browser can show HEIC or AVIF, and none a zip: then the drawing stays.
  parts.image.decode().then(
    () => {
      if (parts.image.src === address) {
        parts.image.hidden = false;
        parts.icon.toggleAttribute("hidden", true);
      }
    },
    () => URL.revokeObjectURL(address),
  );
}

function hidePreview() {
  if (parts.image.src) {
    URL.revokeObjectURL(parts.image.src);
    parts.image.removeAttribute("src");
  }
  parts.image.hidden = true;
  parts.icon.toggleAttribute("hidden", false);
  parts.preview.hidden = true;
  parts.again.hidden = true;
}

function reset() {
  sending?.abort();
  sending = null;
  mayHaveArrived = false;
  input.value = "";
  hidePreview();
  showRefusal("");
  setState("idle");
}

function refuse(words) {
  if (parts.preview.contains(document.activeElement)) {
    input.focus();
  }
  input.value = "";
  hidePreview();
  showRefusal(words);
  setState("refused");
  if (mayHaveArrived) {
    mayHaveArrived = false;
    showArrived(true);
    say(arrived.textContent);
  }
}

/** Take files, whichever way they came. */
function take(files) {
  const isSent = isAllSent();
  showArrived(isSent);
  sending?.abort();
  sending = null;
  mayHaveArrived = false;
  const words = refusalOf(files, limits);
  if (words) {
    refuse(words);
    return;
  }
  const carrier = new DataTransfer();
  files.forEach((file) => carrier.items.add(file));
  input.files = carrier.files;
  showRefusal("");
  showPreview(files);
  submit(files);
  if (isSent) {
    say(`${arrived.textContent} Sending ${nameOf(files)}.`);
  }
}

async function submit(files) {
  mayHaveArrived = isAllSent();
  sending?.abort();
  const controller = new AbortController();
  sending = controller;
  setState("sending");
  parts.again.hidden = true;
  showProgress(files, 0);
  say(`Sending ${nameOf(files)}.`);
  try {
    const address = await send(form, {
      signal: controller.signal,
      onProgress: (percent) => showProgress(files, percent),
      onSilence: () => {
        showRefusal(SILENT_WORDS);
        parts.again.hidden = false;
      },
    });
    say("Sent. Opening the result.");
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
    sending = null;
    if (error instanceof NotNow) {
      // The photo stays chosen: one press sends it again.
      showRefusal(error.message);
      setState("refused");
      parts.state.textContent = mayHaveArrived ? "No answer." : "Not sent.";
      parts.again.hidden = false;
    } else {
      refuse(error.message);
    }
  }
}

function showProgress(files, percent) {
  const size = sizeWords(files.reduce((sum, file) => sum + file.size, 0));
  parts.progress.value = percent;
  parts.state.textContent =
    percent < 100 ? `${size}, sending: ${Math.round(percent)} %` : `${size}, sent`;
}

input.addEventListener("change", () => {
  if (input.files.length) {
    take([...input.files]);
  }
});

parts.cancel.addEventListener("click", () => {
  const isSent = isAllSent();
  reset();
  showArrived(isSent);
  say(isSent ? arrived.textContent : "Cancelled.");
  input.focus();
});

parts.again.addEventListener("click", () => {
  showRefusal("");
  // The button goes, and would take the focus with it.
  parts.cancel.focus();
  submit([...input.files]);
});

// Dropping works on the whole page. dragenter and dragleave also come from every
// element inside, so count them.
let inside = 0;
let stateBefore = "idle";

addEventListener("dragenter", (event) => {
  event.preventDefault();
  inside += 1;
  if (inside === 1) {
    stateBefore = parts.zone.dataset.state;
    setState("dragging");
  }
});

addEventListener("dragover", (event) => {
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
});

addEventListener("dragleave", () => {
  inside = Math.max(0, inside - 1);
  if (inside === 0) {
    setState(stateBefore);
  }
});

addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  setState(stateBefore);
  takeFrom(
    event.dataTransfer,
    "Only files can be dropped here. Please save the picture first.",
  );
});

addEventListener("paste", (event) => {
  takeFrom(event.clipboardData, "There is no picture in the clipboard.");
});

function takeFrom(carrier, otherwise) {
  const files = [...carrier.files];
  if (files.length) {
    take(files);
  } else if (!sending) {
    // What is on its way goes on: it is not refused.
    refuse(otherwise);
  }
}

// Coming back with the browser's button: a fresh zone, not the photo of before.
addEventListener("pageshow", (event) => {
  if (event.persisted) {
    renewPage(form);
    reset();
    showArrived(false);
  }
});
