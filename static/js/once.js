// A form is sent once: the second click of somebody in a hurry would make a second
// link, or not find any more what the first has deleted. What says something else is
// sent, whenever it comes. Without this file it goes twice.

const AGAIN_AFTER_MS = 10_000;

/** When each form was last sent, and what it said. */
let sent = new WeakMap();

function contentOf(form, submitter) {
  const fields = [...new FormData(form, submitter)].map(([name, value]) =>
    value instanceof File ? [name, value.name, value.size, value.lastModified] : [name, value],
  );
  return JSON.stringify([submitter?.formAction, fields]);
}

// Last of all, so that what a script sends by itself is none of this.
addEventListener("submit", (event) => {
  const form = event.target;
  const method = event.submitter?.formMethod || form.method;
  if (event.defaultPrevented || method !== "post") {
    return;
  }
  const now = performance.now();
  const content = contentOf(form, event.submitter);
  const before = sent.get(form);
  if (before?.content === content && now - before.at < AGAIN_AFTER_MS) {
    event.preventDefault();
  } else {
    sent.set(form, { content, at: now });
  }
});

// Back with the browser's button: a new visit.
addEventListener("pageshow", () => {
  sent = new WeakMap();
});
