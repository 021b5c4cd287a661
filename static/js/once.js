// A form is sent once: the second click of somebody in a hurry would make a second
// link, or not find any more what the first has deleted. Without this file it goes twice.

const AGAIN_AFTER_MS = 10_000;

/** When each form was last sent. */
let sentAt = new WeakMap();

// Last of all, so that what a script sends by itself is none of this.
addEventListener("submit", (event) => {
  const form = event.target;
  const method = event.submitter?.formMethod || form.method;
  if (event.defaultPrevented || method !== "post") {
    return;
  }
  const now = performance.now();
  if (now - (sentAt.get(form) ?? -Infinity) < AGAIN_AFTER_MS) {
    event.preventDefault();
  } else {
    sentAt.set(form, now);
  }
});

// Back with the browser's button: a new visit.
addEventListener("pageshow", () => {
  sentAt = new WeakMap();
});
