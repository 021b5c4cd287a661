// The desk: the next faces are fetched and decoded ahead, so that one stands before the
// key of the last is up. Votes are sent one after the other behind one's back, again
// and again until the site has them; without this file the page is a plain form.

import { buttonFor } from "./keys.js";

const AHEAD = 5;
const MAX_BACK = 20;
const RENEW_EVERY_MS = 180_000;
const RETRY_FIRST_MS = 300;
const RETRY_MAX_MS = 8_000;
/** A face that stood for less was not looked at: the second half of a double click. */
const MIN_LOOK_MS = 250;
/** Left to a page that takes this one's place, before the faces go to others. */
const LEAVING_SECONDS = 20;

const desk = document.querySelector("#desk");
const urls = desk.dataset;
const form = desk.querySelector("[data-form]");
let token = form.querySelector("[name=csrfmiddlewaretoken]").value;
const figure = desk.querySelector(".desk-face");
const nothing = document.querySelector("#nothing");
const part = (name) => desk.querySelector(`[data-${name}]`);
const picture = part("picture");
const words = new Map(
  [...form.querySelectorAll(".verdict")].map((button) => [
    button.value,
    button.querySelector("span").textContent,
  ]),
);

/** Faces to come, the first of them on the desk; and those that were labelled. */
let faces = [faceOf({ id: urls.claim, face: urls.face, photo: urls.photo })];
const done = [];
let lookingBack = -1;
let shownAt = performance.now();
let showsPhoto = false;
let unsent = 0;
/** What the site refused; its words stay, whatever key comes next. */
let refusals = 0;
let refusal = "";
let filling = null;
let chain = Promise.resolve();

function faceOf(claim) {
  const image = new Image();
  image.src = claim.face;
  // A picture that does not load shows its words in its place; the face can be skipped.
  return { ...claim, image, ready: image.decode().catch(() => {}) };
}

// --- Talking to the site ---------------------------------------------------------

class Refused extends Error {
  constructor(status, body) {
    super(body.detail ?? "The site refused that.");
    this.status = status;
    this.code = body.code;
  }
}

async function ask(method, url, body) {
  let wait = RETRY_FIRST_MS;
  let hasNewToken = false;
  for (;;) {
    let response = null;
    try {
      response = await fetch(url, {
        method,
        headers: { "Content-Type": "application/json", "X-CSRFToken": token },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      if (response.ok) {
        const answer = response.status === 204 ? {} : await response.json();
        part("logged-out").hidden = true;
        return answer;
      }
    } catch {
      // The network is away: what was said is kept here and sent again.
      response = null;
    }
    if (response?.status === 401) {
      // Kept, too, until the person has logged in again in another tab.
      part("logged-out").hidden = false;
    } else if (response && response.status < 500 && response.status !== 429) {
      const error = new Refused(response.status, await response.json().catch(() => ({})));
      if (error.code !== "permission_denied" || hasNewToken) {
        throw error;
      }
      // Logging in changed the token.
      hasNewToken = true;
      await renewToken();
      continue;
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, RETRY_MAX_MS);
  }
}

async function renewToken() {
  try {
    const page = await (await fetch(location.href)).text();
    const fresh = new DOMParser().parseFromString(page, "text/html");
    token = fresh.querySelector("[name=csrfmiddlewaretoken]").value;
  } catch {
    // Away again: the old token is refused, and the page loads anew.
  }
}

/** One after the other, in the order of the keys. */
function send(action) {
  unsent += 1;
  showUnsent();
  chain = chain
    .then(action)
    .catch(refused)
    .finally(() => {
      unsent -= 1;
      showUnsent();
    });
  return chain;
}

function refused(error) {
  if (!(error instanceof Refused)) {
    throw error;
  }
  if (error.status === 403) {
    // Paused, or no annotator any more: the page says it in full.
    location.reload();
    return;
  }
  refusals += 1;
  const more = refusals > 1 ? ` (${refusals} times)` : "";
  refusal = `${error.message}${more}`;
  alertWith(refusal);
}

function showUnsent() {
  part("saving").textContent = unsent > 1 ? `, saving ${unsent}` : "";
}

function alertWith(text) {
  part("alert").hidden = !text;
  part("alert-words").textContent = text;
}

function clearAlert() {
  alertWith(refusal);
}

/** Have some faces ahead; asking again gives the same ones and renews them. What was
 * to come and is not among them has gone to somebody else, or was deleted. */
function fill() {
  filling ??= (async () => {
    try {
      await chain;
      const before = faces.length > AHEAD ? [] : faces.slice(1);
      const answer = await ask("POST", urls.apiClaims, { count: AHEAD });
      const held = new Set(answer.claims.map((claim) => claim.id));
      const gone = new Set(before.filter((face) => !held.has(face.id)));
      faces = faces.filter((face) => !gone.has(face));
      const known = new Set([...faces, ...done].map((face) => face.id));
      for (const claim of answer.claims) {
        if (!known.has(claim.id)) {
          faces.push(faceOf(claim));
        }
      }
    } catch (error) {
      refused(error);
    } finally {
      filling = null;
    }
    show();
  })();
  return filling;
}

// --- Showing -----------------------------------------------------------------------

function current() {
  return lookingBack >= 0 ? done[done.length - 1 - lookingBack] : faces[0];
}

let shown = null;

function show(since) {
  const face = current() ?? null;
  nothing.hidden = Boolean(face);
  desk.hidden = !face;
  part("looking-back").hidden = lookingBack < 0;
  for (const button of form.querySelectorAll(".verdict")) {
    button.classList.toggle("is-pressed", lookingBack >= 0 && button.value === face?.said);
  }
  if (lookingBack >= 0) {
    part("said").textContent = words.get(face.said) ?? "nothing: you skipped it";
  }
  if (face === shown) {
    return;
  }
  shown = face;
  if (!face) {
    // What had the focus is hidden now; this says what is there instead.
    nothing.querySelector("h1").focus();
    return;
  }
  showsPhoto = false;
  figure.dataset.zoom = "0";
  figure.classList.remove("shows-photo");
  pressed("photo", false);
  picture.src = face.face;
  shownAt = performance.now();
  if (since !== undefined) {
    face.ready.then(() =>
      requestAnimationFrame(() =>
        performance.measure("next-face", { start: since, end: performance.now() }),
      ),
    );
  }
}

function pressed(name, on) {
  form.querySelector(`[data-do=${name}]`).setAttribute("aria-pressed", String(on));
}

// --- What the keys do ------------------------------------------------------------

function label(verdict, key, since) {
  const face = current();
  if (!face) {
    return;
  }
  clearAlert();
  if (lookingBack >= 0) {
    revise(face, verdict);
    return;
  }
  const duration = Math.round(performance.now() - shownAt);
  faces.shift();
  face.said = verdict;
  done.push(face);
  done.splice(0, done.length - MAX_BACK);
  part("status").textContent = words.get(verdict) ?? "Skipped";
  show(since);
  send(async () => {
    if (verdict === "skip") {
      await ask("POST", `${urls.apiClaim}${face.id}/skip`);
      return;
    }
    const answer = await ask("POST", `${urls.apiClaim}${face.id}/verdict`, {
      verdict,
      key,
      duration_ms: duration,
    });
    part("today").textContent = answer.today;
  });
  if (faces.length < AHEAD - 1) {
    fill();
  }
}

function revise(face, verdict) {
  if (verdict === "skip" || face.said === "skip") {
    alertWith("A skipped face comes back by undo, as long as nobody else has it.");
    return;
  }
  face.said = verdict;
  lookingBack = -1;
  show();
  send(() => ask("PUT", `${urls.apiClaim}${face.id}/verdict`, { verdict }));
}

function undo() {
  lookingBack = -1;
  clearAlert();
  send(async () => {
    let claim;
    try {
      claim = await ask("POST", urls.apiUndo);
    } catch (error) {
      if (error.code !== "nothing_to_undo") {
        throw error;
      }
      alertWith(error.message);
      return;
    }
    const index = done.findIndex((face) => face.id === claim.id);
    const [face] = index >= 0 ? done.splice(index, 1) : [faceOf(claim)];
    faces = [face, ...faces.filter((other) => other.id !== face.id)];
    part("status").textContent = "Undone";
    show();
  });
}

const actions = {
  back() {
    if (lookingBack < done.length - 1) {
      lookingBack += 1;
      show();
    }
  },
  forward() {
    if (lookingBack >= 0) {
      lookingBack -= 1;
      show();
    }
  },
  photo() {
    if (!current()) {
      return;
    }
    showsPhoto = !showsPhoto;
    figure.classList.toggle("shows-photo", showsPhoto);
    picture.src = showsPhoto ? current().photo : current().face;
    pressed("photo", showsPhoto);
  },
  zoom() {
    figure.dataset.zoom = String((Number(figure.dataset.zoom) + 1) % 3);
  },
  brightness() {
    figure.dataset.brightness = String((Number(figure.dataset.brightness) + 1) % 4);
  },
};

function press(button, key, since) {
  if (button.dataset.do) {
    actions[button.dataset.do]();
  } else if (button.getAttribute("formaction")?.endsWith("/undo/")) {
    undo();
  } else {
    label(button.value, key, since);
  }
}

document.addEventListener("keydown", (event) => {
  if (event.repeat && event.key === "Enter") {
    // Held on a button, it would press it on face after face.
    event.preventDefault();
    return;
  }
  if (event.key === "ArrowRight" && lookingBack >= 0) {
    event.preventDefault();
    actions.forward();
    return;
  }
  const button = buttonFor(event);
  if (button) {
    event.preventDefault();
    press(button, event.key, event.timeStamp);
  }
});

form.addEventListener("click", (event) => {
  const button = event.target instanceof Element && event.target.closest("button");
  if (button && !button.getAttribute("formaction")?.endsWith("/stop/")) {
    event.preventDefault();
    if (event.detail > 1 && performance.now() - shownAt < MIN_LOOK_MS) {
      return;
    }
    press(button, "", event.timeStamp);
  }
});

// What a person has before them stays theirs while they are here, and goes back when
// they leave; the lease does the same ten minutes later. It is not given back at once:
// the page that a reload brings, or another tab, has the same faces before it.
function stay() {
  if (!document.hidden) {
    fill();
  }
}

setInterval(stay, RENEW_EVERY_MS);
document.addEventListener("visibilitychange", stay);

addEventListener("beforeunload", (event) => {
  if (unsent > 0) {
    event.preventDefault();
  }
});

addEventListener("pagehide", () => {
  if (unsent === 0) {
    fetch(urls.apiRenew, {
      method: "POST",
      keepalive: true,
      headers: { "Content-Type": "application/json", "X-CSRFToken": token },
      body: JSON.stringify({ seconds: LEAVING_SECONDS }),
    });
  }
});

addEventListener("pageshow", (event) => {
  if (event.persisted) {
    location.reload();
  }
});

fill();
