// The live view's faces in words and numbers, beside the video; and for those who
// listen, a summary now and then.

import { EMOTION_WORDS, faceWords, percentWords } from "./words.js";

const MAX_CARDS = 6;
const SPEAK_AFTER_MS = 5000;
const REDRAW_AFTER_MS = 120;

export class Panel {
  #parts;
  #icons;
  #cards = new Map();
  #spoken = null;
  #spokenAt = -Infinity;
  #drawnAt = -Infinity;

  /** @param {{list, nobody, more, status, template}} parts elements of the page */
  constructor(parts, icons) {
    this.#parts = parts;
    this.#icons = icons;
  }

  clear() {
    this.#cards.clear();
    this.#parts.list.replaceChildren();
    this.#spoken = null;
    this.#spokenAt = -Infinity;
    this.#drawnAt = -Infinity;
    this.#parts.nobody.hidden = false;
    this.#parts.more.hidden = true;
  }

  show(tracks, now) {
    if (now - this.#drawnAt < REDRAW_AFTER_MS) {
      return;
    }
    this.#drawnAt = now;
    const shown = tracks.slice(0, MAX_CARDS);
    const numbers = new Set(shown.map((track) => track.number));
    for (const [number, card] of this.#cards) {
      if (!numbers.has(number)) {
        card.node.remove();
        this.#cards.delete(number);
      }
    }
    for (const track of shown) {
      this.#fill(this.#cards.get(track.number) ?? this.#add(track.number), track);
    }
    const left = tracks.length - shown.length;
    this.#parts.nobody.hidden = tracks.length > 0;
    this.#parts.more.hidden = left === 0;
    this.#parts.more.textContent = `And ${left} more, boxed in the picture.`;
    this.#speak(tracks, now);
  }

  #add(number) {
    const node = this.#parts.template.content.firstElementChild.cloneNode(true);
    const bars = [...node.querySelectorAll("[data-emotion]")].map((row) => ({
      emotion: row.dataset.emotion,
      row,
      fill: row.querySelector(".live-fill"),
      percent: row.querySelector(".percent"),
    }));
    node.querySelector("[data-number]").textContent = `Face ${number}`;
    const card = {
      node,
      bars,
      sign: node.querySelector("[data-sign]"),
      word: node.querySelector("[data-word]"),
    };
    // In the order of their numbers, whenever each came into view.
    const after = [...this.#cards].filter(([other]) => other < number);
    const before = after.length ? after.at(-1)[1].node.nextSibling : this.#parts.list.firstChild;
    this.#parts.list.insertBefore(node, before);
    this.#cards.set(number, card);
    this.#cards = new Map([...this.#cards].sort(([one], [other]) => one - other));
    return card;
  }

  #fill(card, track) {
    const word = track.notSure
      ? "Not sure"
      : `${EMOTION_WORDS[track.label]} ${percentWords(track.confidence)}`;
    card.node.className = `card face live-face-card is-${track.label}`;
    card.word.textContent = word;
    const sign = `${this.#icons}#${track.notSure ? "not-sure" : track.label}`;
    if (card.sign.getAttribute("href") !== sign) {
      card.sign.setAttribute("href", sign);
    }
    for (const { emotion, row, fill, percent } of card.bars) {
      const probability = track.probabilities[emotion];
      row.classList.toggle("is-top", emotion === track.label);
      fill.setAttribute("width", `${(100 * probability).toFixed(1)}%`);
      percent.textContent = percentWords(probability);
    }
  }

  /** At most every few seconds, and only what changed: faces and words, no digits. */
  #speak(tracks, now) {
    const gist = tracks.map((track) => `${track.number}${track.label}${track.notSure}`).join();
    if (now - this.#spokenAt < SPEAK_AFTER_MS || gist === this.#spoken) {
      return;
    }
    this.#spokenAt = now;
    this.#spoken = gist;
    const words = tracks
      .slice(0, MAX_CARDS)
      .map((track) => `Face ${track.number}: ${faceWords(track)}.`);
    this.#parts.status.textContent = words.length ? words.join(" ") : "No face in view.";
  }
}
