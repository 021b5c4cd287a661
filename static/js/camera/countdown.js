// The countdown before a snapshot, and whether somebody wants one: remembered from one
// visit to the next.

import { parts, say } from "./view.js";

const COUNT_FROM = 3;
const COUNTDOWN_KEY = "mien-countdown";

export class Countdown {
  #timer = null;

  constructor() {
    try {
      parts.countdown.checked = localStorage.getItem(COUNTDOWN_KEY) !== "off";
    } catch {
      // Storage is switched off: with a countdown, then.
    }
    parts.countdown.addEventListener("change", () => {
      try {
        localStorage.setItem(COUNTDOWN_KEY, this.isWanted ? "on" : "off");
      } catch {
        // Storage is switched off: the choice holds for this page alone.
      }
    });
  }

  get isWanted() {
    return parts.countdown.checked;
  }

  /** Count aloud, a second each; `onDone` is called unless it is stopped before. */
  start(onDone) {
    this.#count(COUNT_FROM, onDone);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  #count(left, onDone) {
    if (left === 0) {
      onDone();
      return;
    }
    parts.count.textContent = String(left);
    say(String(left));
    this.#timer = setTimeout(() => this.#count(left - 1, onDone), 1000);
  }
}
