// Which face of this answer is which face of the one before: each keeps its number,
// and its box and bars glide instead of jumping.

const LOST_AFTER_MS = 600;
const MAX_STEP = 1.3;
const MAX_GROWTH = 2;
const GLIDE_MS = 70;
const MEMORY = 0.55;
const SIDES = ["x", "y", "width", "height"];

/** A face that is followed: `box` where it is drawn, `goal` where it was seen last. */
class Track {
  constructor(number, face, now) {
    this.number = number;
    this.box = { ...face.box };
    this.probabilities = { ...face.probabilities };
    this.doubt = face.not_sure ? 1 : 0;
    this.see(face, now, 0);
  }

  /** Answers waver from frame to frame: what is shown is their running mean. */
  see(face, now, memory = MEMORY) {
    this.goal = face.box;
    this.seenAt = now;
    for (const [emotion, value] of Object.entries(face.probabilities)) {
      this.probabilities[emotion] =
        memory * this.probabilities[emotion] + (1 - memory) * value;
    }
    this.doubt = memory * this.doubt + (1 - memory) * (face.not_sure ? 1 : 0);
  }

  get label() {
    const all = Object.entries(this.probabilities);
    return all.reduce((best, one) => (one[1] > best[1] ? one : best))[0];
  }

  get notSure() {
    return this.doubt > 0.5;
  }

  get confidence() {
    return this.probabilities[this.label];
  }
}

export class Tracks {
  #tracks = [];

  get all() {
    return this.#tracks;
  }

  clear() {
    this.#tracks = [];
  }

  /** Match an answer's faces to the ones that are followed, the closest pair first. */
  update(faces, now) {
    const pairs = [];
    for (const track of this.#tracks) {
      for (const face of faces) {
        const step = stepBetween(track.goal, face.box);
        if (step < MAX_STEP) {
          pairs.push({ track, face, step });
        }
      }
    }
    pairs.sort((one, other) => one.step - other.step);
    const taken = new Set();
    for (const { track, face } of pairs) {
      if (!taken.has(track) && !taken.has(face)) {
        taken.add(track).add(face);
        track.see(face, now);
      }
    }
    this.#tracks = this.#tracks.filter((track) => now - track.seenAt < LOST_AFTER_MS);
    for (const face of faces) {
      if (!taken.has(face)) {
        this.#tracks.push(new Track(this.#freeNumber(), face, now));
      }
    }
    this.#tracks.sort((one, other) => one.number - other.number);
  }

  /** Move every box on; `elapsed_ms` of Infinity puts it where it was seen. */
  glide(elapsed_ms) {
    const share = 1 - Math.exp(-elapsed_ms / GLIDE_MS);
    for (const track of this.#tracks) {
      for (const side of SIDES) {
        track.box[side] += share * (track.goal[side] - track.box[side]);
      }
    }
  }

  #freeNumber() {
    const used = new Set(this.#tracks.map((track) => track.number));
    let number = 1;
    while (used.has(number)) {
      number += 1;
    }
    return number;
  }
}

/**
 * How far one box is from another, in sides of the two; Infinity where their sizes are
 * too different for one face. Two that do not overlap may still be one: between two
 * answers a head moves.
 */
export function stepBetween(one, other) {
  const sides = [one, other].map((box) => Math.sqrt(box.width * box.height));
  if (Math.max(...sides) > MAX_GROWTH * Math.min(...sides)) {
    return Infinity;
  }
  const dx = one.x + one.width / 2 - other.x - other.width / 2;
  const dy = one.y + one.height / 2 - other.y - other.height / 2;
  return Math.hypot(dx, dy) / ((sides[0] + sides[1]) / 2);
}
