// The drop zone: choose, drop or paste a photo, see it, and it is on its way.
// Without this file the form still works: choose, then press the button.

import { limitsOf, refusalOf, sizeWords } from "./upload/rules.js";
import { Unreachable, send } from "./upload/transfer.js";

const form = document.querySelector("#upload");
const find = (name) => form.querySelector(`[data-${name}]`);
const input = form.querySelector("input[type=file]");
const limits = limitsOf(form);
const refusal = document.querySelector("#refusal");
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

let sending = null;

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

function showPreview(file) {
  hidePreview();
  parts.name.textContent = file.name;
  parts.preview.hidden = false;
  const address = URL.createObjectURL(file);
  parts.image.src = address;
  // Not every browser can show HEIC or AVIF: then the drawing stays.
  parts.image.decode().then(
    () => {
      if (parts.image.src === address) {
        parts.image.hidden = false;
        parts.icon.hidden = true;
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
  parts.icon.hidden = false;
  parts.preview.hidden = true;
  parts.again.hidden = true;
}

function reset() {
  sending?.abort();
  sending = null;
  input.value = "";
  hidePreview();
  showRefusal("");
  setState("idle");
}

function refuse(words) {
  input.value = "";
  hidePreview();
  showRefusal(words);
  setState("refused");
}

/** Take one file, whichever way it came. */
function take(file) {
  sending?.abort();
  const words = refusalOf(file, limits);
  if (words) {
    refuse(words);
    return;
  }
  if (input.files[0] !== file) {
    const carrier = new DataTransfer();
    carrier.items.add(file);
    input.files = carrier.files;
  }
  showRefusal("");
  showPreview(file);
  submit(file);
}

async function submit(file) {
  const controller = new AbortController();
  sending = controller;
  setState("sending");
  parts.again.hidden = true;
  showProgress(file, 0);
  say(`Sending ${file.name}.`);
  try {
    const address = await send(form, {
      signal: controller.signal,
      onProgress: (percent) => showProgress(file, percent),
    });
    say("Sent. Opening the result.");
    location.assign(address);
  } catch (error) {
    if (controller.signal.aborted) {
      return;
    }
    sending = null;
    if (error instanceof Unreachable) {
      // The photo stays chosen: one press sends it again.
      showRefusal(error.message);
      setState("refused");
      parts.state.textContent = "Not sent.";
      parts.again.hidden = false;
    } else {
      refuse(error.message);
    }
  }
}

function showProgress(file, percent) {
  parts.progress.value = percent;
  parts.state.textContent =
    percent < 100
      ? `${sizeWords(file.size)}, sending: ${Math.round(percent)} %`
      : `${sizeWords(file.size)}, sent`;
}

input.addEventListener("change", () => {
  if (input.files.length) {
    take(input.files[0]);
  }
});

parts.cancel.addEventListener("click", () => {
  reset();
  say("Cancelled. Nothing was kept.");
  input.focus();
});

parts.again.addEventListener("click", () => {
  showRefusal("");
  submit(input.files[0]);
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
  takeFrom(event.dataTransfer, "Only a file can be dropped here. Please save the picture first.");
});

addEventListener("paste", (event) => {
  takeFrom(event.clipboardData, "There is no picture in the clipboard.");
});

function takeFrom(carrier, otherwise) {
  const file = carrier.files[0];
  if (file) {
    take(file);
  } else {
    refuse(otherwise);
  }
}

// Coming back with the browser's button: a fresh zone, not the photo of before.
addEventListener("pageshow", (event) => {
  if (event.persisted) {
    reset();
  }
});
