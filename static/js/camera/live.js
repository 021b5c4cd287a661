// The live view's loop: a frame goes out, its answer comes back, then the next one.
// It finds the pace that browser, network and site can keep together.

import { grabFrame } from "./frames.js";

const SIDES_PX = [640, 480, 320];
const QUALITY = 0.8;
const MIN_INTERVAL_MS = 1000 / 12;
const ANSWER_LIMIT_MS = 8000;
const SLOW_MS = 190;
const FAST_MS = 150;
const STEADY_RESULTS = 8;
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 15_000;
const RATE_WINDOW_MS = 3000;

/** Which size of frame the machine can keep up with: smaller where answers lag. */
export class Pace {
  #level = 0;
  #mean_ms = 0;
  #since = 0;
  #patience = 1;

  get maxSide() {
    return SIDES_PX[this.#level];
  }

  /** Take note of how long one frame took, from camera to answer. */
  add(duration_ms) {
    this.#mean_ms = this.#mean_ms ? 0.8 * this.#mean_ms + 0.2 * duration_ms : duration_ms;
    this.#since += 1;
    if (this.#since < STEADY_RESULTS) {
      return;
    }
    if (this.#mean_ms > SLOW_MS && this.#level < SIDES_PX.length - 1) {
      // Every step down makes the next step up wait longer: no swinging.
      this.#patience = Math.min(2 * this.#patience, 16);
      this.#move(1);
    } else if (this.#level > 0 && this.#since >= STEADY_RESULTS * 4 * this.#patience) {
      const growth = (SIDES_PX[this.#level - 1] / SIDES_PX[this.#level]) ** 2;
      if (this.#mean_ms * growth < FAST_MS) {
        this.#move(-1);
      }
    }
  }

  #move(step) {
    this.#level += step;
    this.#since = 0;
    this.#mean_ms = 0;
  }
}

/** Results a second over the last few seconds. */
export class Rate {
  #times = [];

  add(now) {
    this.#times.push(now);
  }

  at(now) {
    this.#times = this.#times.filter((time) => now - time <= RATE_WINDOW_MS);
    const first = this.#times[0];
    if (this.#times.length < 2) {
      return 0;
    }
    return (1000 * (this.#times.length - 1)) / Math.max(now - first, 1);
  }
}

/** Asks until it is stopped. Nothing is in flight once `stop` has returned. */
export class LiveLoop {
  #options;
  #canvas = document.createElement("canvas");
  #controller = null;

  /**
   * @param {{
   *   video: HTMLVideoElement, address: string, token: string,
   *   onReading: (reading: object, figures: object) => void,
   *   onTrouble: (kind: "busy" | "away" | "refused", seconds: number) => void,
   * }} options
   */
  constructor(options) {
    this.#options = options;
  }

  start() {
    this.stop();
    this.#controller = new AbortController();
    this.#run(this.#controller.signal);
  }

  stop() {
    this.#controller?.abort();
    this.#controller = null;
  }

  async #run(signal) {
    const pace = new Pace();
    const rate = new Rate();
    let failures = 0;
    while (!signal.aborted) {
      const startedAt = performance.now();
      const answer = await this.#ask(pace.maxSide, signal);
      if (signal.aborted) {
        return;
      }
      const now = performance.now();
      const duration_ms = now - startedAt;
      let wait_ms = Math.max(0, MIN_INTERVAL_MS - duration_ms);
      if (answer.reading) {
        failures = 0;
        pace.add(duration_ms);
        rate.add(now);
        this.#options.onReading(answer.reading, {
          perSecond: rate.at(now),
          duration_ms,
          maxSide: pace.maxSide,
        });
      } else {
        const patience_ms = Math.min(RETRY_FIRST_MS * 2 ** failures, RETRY_MAX_MS);
        failures += 1;
        wait_ms = Math.max(patience_ms, 1000 * answer.retryAfter);
        this.#options.onTrouble(answer.trouble, wait_ms / 1000);
      }
      await pause(wait_ms, signal);
    }
  }

  /** One frame there and back: a reading, or what is in the way. */
  async #ask(maxSide, signal) {
    const limit = new AbortController();
    const end = () => limit.abort();
    const timer = setTimeout(end, ANSWER_LIMIT_MS);
    signal.addEventListener("abort", end);
    try {
      const frame = await grabFrame(this.#options.video, this.#canvas, {
        maxSide,
        quality: QUALITY,
      });
      const body = new FormData();
      body.append("frame", frame, "frame.jpg");
      const response = await fetch(this.#options.address, {
        method: "POST",
        body,
        headers: { "X-CSRFToken": this.#options.token },
        cache: "no-store",
        signal: limit.signal,
      });
      if (response.ok) {
        return { reading: await response.json() };
      }
      const busy = response.status === 429 || response.status === 503;
      return {
        trouble: busy ? "busy" : "refused",
        retryAfter: Number(response.headers.get("Retry-After")) || 0,
      };
    } catch (error) {
      // A hotel's page in place of the answer is no JSON.
      const isNoAnswer = error instanceof TypeError || error instanceof SyntaxError;
      if (isNoAnswer || error.name === "AbortError") {
        return { trouble: "away", retryAfter: 0 };
      }
      // The camera has not shown its first frame yet, or shows none just now.
      return { trouble: "dark", retryAfter: 0 };
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
    }
  }
}

function pause(duration_ms, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, duration_ms);
    signal.addEventListener("abort", end);
  });
}
