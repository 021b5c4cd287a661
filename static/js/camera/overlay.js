// Boxes, words and bars on the running video, drawn in the video's own pixels.
// Everything is an SVG attribute: the page allows no inline style.

import { EMOTION_WORDS, EMOTIONS, percentWords } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const PLATE_WIDTH = 148;
const HEAD_HEIGHT = 26;
const ROW_HEIGHT = 17;
const BAR_X = 30;
const BAR_WIDTH = PLATE_WIDTH - BAR_X - 10;
const FULL_HEIGHT = HEAD_HEIGHT + EMOTIONS.length * ROW_HEIGHT + 6;
const MIN_SIDE_FOR_BARS = 70;
const MAX_FACES_WITH_BARS = 4;

function make(name, attributes = {}, parent = null) {
  const node = document.createElementNS(SVG, name);
  set(node, attributes);
  parent?.append(node);
  return node;
}

function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
}

export class Overlay {
  #svg;
  #icons;
  #nodes = new Map();

  constructor(svg, icons) {
    this.#svg = svg;
    this.#icons = icons;
  }

  clear() {
    this.#svg.replaceChildren();
    this.#nodes.clear();
  }

  /**
   * @param {Track[]} tracks
   * @param {{width: number, height: number, mirrored: boolean}} frame in pixels
   */
  draw(tracks, frame) {
    set(this.#svg, { viewBox: `0 0 ${frame.width} ${frame.height}` });
    // How many pixels of the frame make one of the page: words keep their size.
    const shown = this.#svg.getBoundingClientRect();
    const unit =
      1 / Math.min(shown.width / frame.width || 1, shown.height / frame.height || 1);
    const crowded = tracks.length > MAX_FACES_WITH_BARS;
    const live = new Set();
    for (const track of tracks) {
      live.add(track.number);
      const node = this.#nodes.get(track.number) ?? this.#add(track.number);
      place(node, track, frame, unit, crowded);
    }
    for (const [number, node] of this.#nodes) {
      if (!live.has(number)) {
        node.group.remove();
        this.#nodes.delete(number);
      }
    }
  }

  #add(number) {
    const group = make("g", {}, this.#svg);
    const node = {
      icons: this.#icons,
      group,
      shade: make("rect", { class: "live-shade" }, group),
      edge: make("rect", { class: "live-edge" }, group),
      plate: make("g", { class: "plate" }, group),
    };
    node.ground = make("rect", { class: "plate-ground", rx: 9, width: PLATE_WIDTH }, node.plate);
    node.badge = make("circle", { class: "plate-badge", cx: 15, cy: 13, r: 8.5 }, node.plate);
    node.number = make("text", { class: "plate-number", x: 15, y: 17 }, node.plate);
    node.words = make("text", { class: "plate-words", x: BAR_X, y: 17.5 }, node.plate);
    node.number.textContent = String(number);
    node.bars = make("g", {}, node.plate);
    node.fills = EMOTIONS.map((emotion, index) => {
      const y = HEAD_HEIGHT + index * ROW_HEIGHT;
      const row = make("g", { class: `is-${emotion}` }, node.bars);
      make(
        "use",
        { class: "plate-icon", href: `${this.#icons}#${emotion}`, x: 8, y: y + 1, width: 14, height: 14 },
        row,
      );
      const bar = { x: BAR_X, y: y + 4, height: 8, rx: 4 };
      make("rect", { ...bar, class: "plate-track", width: BAR_WIDTH }, row);
      return make("rect", { ...bar, class: "plate-fill", width: 0 }, row);
    });
    this.#nodes.set(number, node);
    return node;
  }
}

function place(node, track, frame, unit, crowded) {
  const { y, width, height } = track.box;
  // A mirrored picture has left and right exchanged; words must not be.
  const x = frame.mirrored ? frame.width - track.box.x - width : track.box.x;
  const state = track.notSure ? " is-not-sure" : "";
  set(node.group, { class: `live-face is-${track.label}${state}` });
  const rect = {
    x: x.toFixed(1),
    y: y.toFixed(1),
    width: Math.max(0, width).toFixed(1),
    height: Math.max(0, height).toFixed(1),
    rx: (6 * unit).toFixed(1),
  };
  set(node.shade, rect);
  set(node.edge, rect);
  const withBars = !crowded && height / unit >= MIN_SIDE_FOR_BARS;
  const plateHeight = withBars ? FULL_HEIGHT : HEAD_HEIGHT;
  const at = platePlace({ x, y, width, height }, frame, unit, plateHeight);
  set(node.plate, {
    transform: `translate(${at.x.toFixed(1)} ${at.y.toFixed(1)}) scale(${unit.toFixed(4)})`,
  });
  set(node.ground, { height: plateHeight });
  if (withBars) {
    node.bars.removeAttribute("display");
  } else {
    set(node.bars, { display: "none" });
  }
  const word = track.notSure
    ? "Not sure"
    : `${EMOTION_WORDS[track.label]} ${percentWords(track.confidence)}`;
  if (node.words.textContent !== word) {
    node.words.textContent = word;
  }
  EMOTIONS.forEach((emotion, index) => {
    const length = BAR_WIDTH * track.probabilities[emotion];
    set(node.fills[index], { width: length.toFixed(1) });
  });
}

/** Beside the face where there is room, else below or above it, else inside. */
function platePlace(box, frame, unit, plateHeight) {
  const gap = 6 * unit;
  const width = PLATE_WIDTH * unit;
  const height = plateHeight * unit;
  const clampX = (x) => Math.min(Math.max(x, 0), Math.max(frame.width - width, 0));
  const clampY = (y) => Math.min(Math.max(y, 0), Math.max(frame.height - height, 0));
  if (box.x + box.width + gap + width <= frame.width) {
    return { x: box.x + box.width + gap, y: clampY(box.y) };
  }
  if (box.x - gap - width >= 0) {
    return { x: box.x - gap - width, y: clampY(box.y) };
  }
  if (box.y + box.height + gap + height <= frame.height) {
    return { x: clampX(box.x), y: box.y + box.height + gap };
  }
  return { x: clampX(box.x), y: clampY(box.y - gap - height) };
}
