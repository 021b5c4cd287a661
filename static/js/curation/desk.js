// The desk: the next faces are fetched and decoded ahead, so that one stands before the
// key of the last is up. Votes are sent one after the other behind one's back, again
// and again until the site has them; without this file the page is a plain form.

import { buttonFor } from "./keys.js";
import { Refused, ask, headers } from "./site.js";

const AHEAD = 5;
const MAX_BACK = 20;
const RENEW_EVERY_MS = 180_000;
/** A face that stood for less was not looked at: the second half of a double click. */
const MIN_LOOK_MS = 250;
/** Left to a page that takes this one's place, before the faces go to others. */
const LEAVING_SECONDS = 20;
/** Another desk of this browser keeps its faces so long after one was left: surely after
 * that one has said how little it needs them, and well before they go to others. */
const KEEP_AFTER_MS = 5_000;

const desk = document.querySelector("#desk");
const urls = desk.dataset;
const form = desk.querySelector("[data-form]");
const figure = desk.querySelector(".desk-face");
const nothing = document.querySelector("#nothing");
const waiting = document.querySelector("#waiting");
const part = (name) => document.querySelector(`[data-${name}]`);
const picture = part("picture");
const words = new Map(
  [...form.querySelectorAll(".verdict")].map((button) => [
    button.value,
    button.querySelector("span").textContent,
  ]),
);

/** Faces to come, the first of them on the desk; and those that were labelled. */
let faces = [faceOf({ id: urls.claim, face: urls.face, photo: urls.photo })];
let done = [];
/** The labelled face that somebody looks back at, or null. */
let lookedAt = null;
/** Undone without being known here: which face comes back is in the answer alone. */
let isUndoing = false;
let shownAt = performance.now();
let showsPhoto = false;
let unsent = 0;
/** What the site refused; its words stay, whatever key comes next. */
let refusals = 0;
let refusal = "";
let isFilling = false;
let fillAgain = false;
/** Of which something was sent since the site was last asked for faces. */
let sentSince = new Set();
let isStopping = false;
let isLeaving = false;
let chain = Promise.resolve();

function faceOf(claim) {
  const image = new Image();
  image.src = claim.face;
  // A picture that does not load shows its words in its place; the face can be skipped.
  return { ...claim, image, ready: image.decode().catch(() => {}), unsent: 0 };
}

// --- Saving and fetching -----------------------------------------------------------

/** One after the other, in the order of the keys. A face of which the site refused
 * something is neither before this person nor theirs to change. */
function send(action, face) {
  unsent += 1;
  if (face) {
    face.unsent += 1;
    sentSince.add(face);
  }
  showUnsent();
  chain = chain
    .then(action)
    .catch((error) => {
      forget(face);
      refused(error);
    })
    .finally(() => {
      unsent -= 1;
      if (face) {
        face.unsent -= 1;
      }
      showUnsent();
      show();
    });
}

function forget(face) {
  faces = faces.filter((other) => other !== face);
  done = done.filter((other) => other !== face);
  if (lookedAt === face) {
    lookedAt = null;
  }
}

function refused(error) {
  if (!(error instanceof Refused)) {
    // Seen by whoever looks after the page; what comes next is sent all the same.
    reportError(error);
    return;
  }
  if (error.status === 403) {
    // Paused, or no annotator any more: the page says it in full.
    isLeaving = true;
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
  part("waiting-for").textContent =
    unsent > 0
      ? `Saving ${unsent} label${unsent > 1 ? "s" : ""}`
      : "Looking for the next faces";
}

function alertWith(text) {
  part("alert").hidden = !text;
  part("alert-words").textContent = text;
}

function clearAlert() {
  alertWith(refusal);
}

/** Have some faces ahead; asking again gives the same ones and renews them. What was
 * to come and is not among them has gone to somebody else, or was deleted; what was
 * labelled and is among them was undone, in another tab or by a lost request. Of what
 * somebody has said something since, the answer knows nothing; and the face before
 * them stays. */
async function fill() {
  if (isFilling) {
    // What was asked already knows nothing of the labels since.
    fillAgain = true;
    return;
  }
  isFilling = true;
  try {
    do {
      fillAgain = false;
      await chain;
      const isSettled = (face) => face.unsent === 0;
      const before = faces.length > AHEAD ? [] : faces.slice(1).filter(isSettled);
      const labelled = done.filter(isSettled);
      sentSince = new Set();
      const answer = await ask("POST", urls.apiClaims, { count: AHEAD });
      const held = new Set(answer.claims.map((claim) => claim.id));
      const isKnown = (face) => !sentSince.has(face);
      const gone = new Set(before.filter((face) => isKnown(face) && !held.has(face.id)));
      faces = faces.filter((face, index) => index === 0 || !gone.has(face));
      for (const face of labelled.filter(({ id }) => held.has(id))) {
        if (done.includes(face) && isKnown(face)) {
          forget(face);
          faces.push(face);
        }
      }
      const known = new Set([...faces, ...done].map((face) => face.id));
      for (const claim of answer.claims) {
        if (!known.has(claim.id)) {
          faces.push(faceOf(claim));
        }
      }
      show();
    } while (fillAgain && faces.length < AHEAD - 1);
  } catch (error) {
    refused(error);
  } finally {
    isFilling = false;
  }
  show();
}

// --- Showing -----------------------------------------------------------------------

function current() {
  return lookedAt ?? faces[0] ?? null;
}

/** What stands there: a face, or the part that says why there is none. */
let shown = null;
/** What had the focus when the last face went. */
let focused = null;

function show(since) {
  const face = current();
  const isBusy = unsent > 0 || isFilling;
  const wasEmpty = shown === waiting || shown === nothing;
  const hadFocus = wasEmpty && shown.contains(document.activeElement);
  desk.hidden = !face;
  waiting.hidden = Boolean(face) || !isBusy;
  nothing.hidden = Boolean(face) || isBusy;
  showLookingBack();
  const next = face ?? (isBusy ? waiting : nothing);
  if (next === shown) {
    return;
  }
  shown = next;
  if (!face) {
    // What had the focus is hidden now; this says what is there instead.
    if (!wasEmpty) {
      focused = document.activeElement;
    }
    next.querySelector("h1").focus();
    return;
  }
  if (hadFocus) {
    focused.focus();
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

function showLookingBack() {
  const notice = part("looking-back");
  if (!lookedAt && notice.contains(document.activeElement)) {
    form.querySelector("[data-do=back]").focus();
  }
  notice.hidden = !lookedAt;
  for (const button of form.querySelectorAll(".verdict")) {
    if (lookedAt) {
      button.setAttribute("aria-pressed", String(button.value === lookedAt.said));
    } else {
      button.removeAttribute("aria-pressed");
    }
  }
  if (lookedAt) {
    part("said").textContent = words.get(lookedAt.said) ?? "nothing: you skipped it";
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
  if (isUndoing) {
    alertWith("Undoing: please wait for the face to come back.");
    return;
  }
  clearAlert();
  if (lookedAt) {
    revise(face, verdict);
    return;
  }
  const duration = Math.round(performance.now() - shownAt);
  faces.shift();
  face.said = verdict;
  done.push(face);
  done.splice(0, done.length - MAX_BACK);
  part("status").textContent = words.get(verdict) ?? "Skipped";
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
  }, face);
  show(since);
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
  lookedAt = null;
  show();
  send(() => ask("PUT", `${urls.apiClaim}${face.id}/verdict`, { verdict }), face);
}

/** The last face comes back at once, so that the next key is meant for it. The site
 * is told which one it is: sent again, that takes back no other. */
function undo() {
  if (isUndoing) {
    return;
  }
  lookedAt = null;
  clearAlert();
  const face = done.pop();
  if (face) {
    faces.unshift(face);
    part("status").textContent = "Undone";
  } else {
    isUndoing = true;
    part("status").textContent = "Undoing";
  }
  send(async () => {
    try {
      const claim = await ask("POST", urls.apiUndo, face ? { claim: face.id } : {});
      if (!face) {
        faces = [faceOf(claim), ...faces.filter((other) => other.id !== claim.id)];
        part("status").textContent = "Undone";
        clearAlert();
      }
    } catch (error) {
      if (error.code !== "nothing_to_undo") {
        throw error;
      }
      forget(face);
      alertWith(error.message);
    } finally {
      isUndoing = isUndoing && Boolean(face);
    }
  }, face);
  show();
}

const actions = {
  back() {
    const index = lookedAt ? done.indexOf(lookedAt) : done.length;
    if (index > 0) {
      lookedAt = done[index - 1];
      show();
    }
  },
  forward() {
    lookedAt = done[done.indexOf(lookedAt) + 1] ?? null;
    show();
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
  if (isStopping) {
    return;
  }
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
  const button = buttonFor(event);
  if (button && (lookedAt || button.dataset.do !== "forward")) {
    event.preventDefault();
    press(button, event.key, event.timeStamp);
  }
});

desk.addEventListener("click", (event) => {
  const button = event.target instanceof Element && event.target.closest("button");
  if (button?.getAttribute("formaction")?.endsWith("/stop/")) {
    stop(event, button);
  } else if (button) {
    event.preventDefault();
    if (event.detail > 1 && performance.now() - shownAt < MIN_LOOK_MS) {
      return;
    }
    press(button, "", event.timeStamp);
  }
});

/** Leave once everything is saved: the faces are given back with that. Until then
 * nothing more is taken, or it might never end. */
async function stop(event, button) {
  if (unsent === 0) {
    return;
  }
  event.preventDefault();
  if (isStopping) {
    return;
  }
  isStopping = true;
  const words = button.textContent;
  const refusalsBefore = refusals;
  button.textContent = "Saving, then stopping";
  part("status").textContent = "Saving before you go";
  while (unsent > 0) {
    await chain;
  }
  if (refusals > refusalsBefore) {
    // Nobody could read on a page that goes what was not saved; the next press leaves.
    isStopping = false;
    button.textContent = words;
    part("status").textContent = "Not everything was saved";
    return;
  }
  form.requestSubmit(button);
}

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
  if (unsent > 0 && !isLeaving) {
    event.preventDefault();
  }
});

const otherDesks = globalThis.BroadcastChannel
  ? new BroadcastChannel("mien-desks")
  : null;
otherDesks?.addEventListener("message", () => {
  setTimeout(() => ask("POST", urls.apiRenew).catch(refused), KEEP_AFTER_MS);
});

addEventListener("pagehide", () => {
  if (unsent === 0) {
    otherDesks?.postMessage("left");
    fetch(urls.apiRenew, {
      method: "POST",
      keepalive: true,
      headers: headers(),
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
