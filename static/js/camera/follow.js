// The live view: what the site reads in the frames is drawn over the video and told
// beside it, from start to stop.

import { LiveLoop } from "./live.js";
import { Overlay } from "./overlay.js";
import { Panel } from "./panel.js";
import { Tracks } from "./tracks.js";
import { form, hint, icons, parts, root, say, show } from "./view.js";
import { troubleWords } from "./words.js";

const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Follow {
  #tracks = new Tracks();
  #overlay = new Overlay(parts.overlay, icons);
  #panel = new Panel(
    { ...parts, template: document.querySelector("#live-face") },
    icons,
  );
  #loop = new LiveLoop({
    video: parts.video,
    address: root.dataset.liveUrl,
    token: form.elements.csrfmiddlewaretoken.value,
    onReading: (reading, figures) => this.#showReading(reading, figures),
    onTrouble: (kind, seconds) => this.#showTrouble(kind, seconds),
  });
  #drawing = null;

  /** @param {{mirrored: boolean}} options whether the video is shown mirrored */
  start({ mirrored }) {
    // The mode may have been changed while the camera was starting.
    this.stop();
    this.#tracks.clear();
    this.#overlay.clear();
    this.#panel.clear();
    this.#loop.start();
    let before = performance.now();
    const draw = (now) => {
      this.#tracks.glide(still.matches ? Infinity : now - before);
      before = now;
      this.#overlay.draw(this.#tracks.all, {
        width: parts.video.videoWidth || 640,
        height: parts.video.videoHeight || 480,
        mirrored,
      });
      this.#drawing = requestAnimationFrame(draw);
    };
    this.#drawing = requestAnimationFrame(draw);
  }

  stop() {
    this.#loop.stop();
    cancelAnimationFrame(this.#drawing);
    this.#drawing = null;
  }

  #showReading(reading, { perSecond, duration_ms, maxSide }) {
    const now = performance.now();
    // The answer counts in pixels of the frame that was sent, which may be smaller.
    const scale = parts.video.videoWidth / reading.width;
    const faces = reading.faces.map((face) => ({
      ...face,
      box: Object.fromEntries(
        Object.entries(face.box).map(([side, value]) => [side, value * scale]),
      ),
    }));
    this.#tracks.update(faces, now);
    this.#panel.show(this.#tracks.all, now);
    root.dataset.resultsPerSecond = perSecond.toFixed(2);
    const rate = perSecond ? `${perSecond.toFixed(1)} results a second` : "first result";
    parts.rate.textContent = `${rate} · ${Math.round(duration_ms)} ms`;
    root.dataset.frameSide = String(maxSide);
    hint(this.#tracks.all.length ? "" : "No face in view");
  }

  /** Nothing is read now: what was read last must not stand over what is seen. */
  #showTrouble(kind, seconds) {
    this.#tracks.clear();
    this.#panel.clear();
    show(parts.nobody, false);
    parts.rate.textContent = "";
    hint(troubleWords(kind, seconds));
    say(troubleWords(kind, seconds));
  }
}
