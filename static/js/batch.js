// The page of a batch: says how far it has got, not after every photo, and when it is
// done. Without this file the page reloads itself.

import { keepAsking } from "./poll.js";

const SPEAK_AFTER_MS = 5000;

const announcer = document.querySelector("#announcer");
let spokenAt = performance.now();

keepAsking("#batch", {
  onChange(part, isDone) {
    const now = performance.now();
    if (isDone || now - spokenAt > SPEAK_AFTER_MS) {
      spokenAt = now;
      announcer.textContent = part.querySelector("[data-words]").textContent;
    }
  },
  onTrouble(part) {
    const words = "Still trying to reach the site …";
    part.querySelector("[data-words]").textContent = words;
    announcer.textContent = words;
  },
});
