// The result page: keeps asking until there is a result, says when it is there, ties
// each card to its box, and shows where the model looked. Without this file the page
// reloads itself, and all that can be done is done by links and forms.

import { keepAsking } from "./poll.js";

const announcer = document.querySelector("#announcer");
const current = () => document.querySelector("#result");
const closest = (node, selector) =>
  node instanceof Element ? node.closest(selector) : null;

keepAsking("#result", {
  onChange(part, isDone) {
    if (isDone) {
      announce(part);
    }
  },
  onTrouble(part) {
    const words = "Still trying to reach the site …";
    part.querySelector("[data-waiting-words]").textContent = words;
    announcer.textContent = words;
  },
});

function announce(part) {
  const headline = part.querySelector("[data-headline]").textContent;
  document.title = `${headline} · Mien`;
  const faces = [...part.querySelectorAll(".face-link")].map((link) =>
    link.textContent.replace(/\s+/g, " ").trim(),
  );
  announcer.textContent = [headline, ...faces.slice(0, 5)].join(". ");
}

// Cards and boxes: pointing at one, or moving the focus there, shows the other.
// Delegated, because both are exchanged when the result arrives.

const numberOf = (node) => closest(node, "[data-face]")?.dataset.face ?? null;

function highlight(number) {
  for (const node of current().querySelectorAll("[data-face]")) {
    node.classList.toggle("is-active", node.dataset.face === number);
  }
  current().querySelector(".boxes").classList.toggle("has-active", number !== null);
}

document.addEventListener("pointerover", (event) => highlight(numberOf(event.target)));
document.addEventListener("focusin", (event) => highlight(numberOf(event.target)));
document.addEventListener("focusout", () => highlight(null));

const still = matchMedia("(prefers-reduced-motion: reduce)");

function focusCard(number) {
  const card = document.querySelector(`#face-${number}`);
  card?.querySelector(".face-link").focus({ preventScroll: true });
  bringIntoView(card);
}

function bringIntoView(node) {
  node?.scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
}

// Where the model looked: the pictures are fetched when they are first asked for.

function switchHeat() {
  const button = current().querySelector("[data-heat-switch]");
  const maps = [...current().querySelectorAll("[data-heat]")];
  const isShown = maps.some((map) => map.hasAttribute("href"));
  for (const map of maps) {
    if (isShown) {
      map.removeAttribute("href");
    } else {
      map.setAttribute("href", map.dataset.heat);
    }
  }
  const words = isShown ? button.dataset.show : button.dataset.hide;
  button.querySelector("span").textContent = words;
  announcer.textContent = isShown
    ? "Hidden."
    : "The photo now shows in orange where the model looked.";
}

// Boxes around nothing: a browser shows these words in the picture's place.
function sayNoPhoto(photo) {
  photo.alt = "The photo could not be fetched. Please reload the page.";
}

const photo = document.querySelector("#photo-image");
if (photo.complete && !photo.naturalWidth) {
  sayNoPhoto(photo);
}

// The photo may be gone by now, or the site away. Errors of pictures do not bubble.
document.addEventListener(
  "error",
  ({ target }) => {
    if (target.id === "photo-image") {
      sayNoPhoto(target);
    }
    if (closest(target, "[data-heat]")?.hasAttribute("href")) {
      switchHeat();
      current().querySelector("[data-heat-switch] span").textContent =
        "It could not be fetched: try again";
      announcer.textContent =
        "Where the model looked could not be fetched. Please try again, or reload the page.";
    }
  },
  { capture: true },
);

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) {
    return;
  }
  const box = closest(event.target, ".box");
  const link = closest(event.target, ".face-link");
  if (box) {
    event.preventDefault();
    focusCard(box.dataset.face);
  } else if (link) {
    // Shown, while the focus stays in the words.
    event.preventDefault();
    link.focus({ preventScroll: true });
    highlight(numberOf(link));
    bringIntoView(current().querySelector(".stage"));
  } else if (closest(event.target, "[data-heat-switch]")) {
    event.preventDefault();
    switchHeat();
  }
});

// On a face: arrow keys walk from one to the next, H shows where the model looked.
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) {
    return;
  }
  const here = closest(event.target, ".face-link");
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  if (here && step) {
    const links = [...current().querySelectorAll(".face-link")];
    const next = links[links.indexOf(here) + step];
    if (next) {
      event.preventDefault();
      focusCard(numberOf(next));
    }
  } else if (here && event.key.toLowerCase() === "h") {
    switchHeat();
  } else if (event.key === "Escape") {
    const open = closest(event.target, "details[open]");
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  }
});
