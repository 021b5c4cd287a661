// Which face of this answer is which face of the one before: each keeps its number,
// and its box and bars glide instead of jumping.

const LOST_AFTER_MS = 600;
const MIN_OVERLAP = 0.15;
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

  get percent() {
    return Math.round(100 * this.probabilities[this.label]);
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
        const overlap = overlapOf(track.goal, face.box);
        if (overlap >= MIN_OVERLAP) {
          pairs.push({ track, face, overlap });
        }
      }
    }
    pairs.sort((one, other) => other.overlap - one.overlap);
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

/** Intersection over union of two boxes, 0 to 1. */
export function overlapOf(one, other) {
  const width =
    Math.min(one.x + one.width, other.x + other.width) - Math.max(one.x, other.x);
  const height =
    Math.min(one.y + one.height, other.y + other.height) - Math.max(one.y, other.y);
  if (width <= 0 || height <= 0) {
    return 0;
  }
  const both = width * height;
  return both / (one.width * one.height + other.width * other.height - both);
}
