// The result page: keeps asking until there is a result, says when it is there, and
// ties each card to its box. Without this file the page reloads itself.

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 15_000;

const announcer = document.querySelector("#announcer");
let failures = 0;

const current = () => document.querySelector("#result");
const waits = () => current().hasAttribute("hx-get");

function ask() {
  if (waits()) {
    current().dispatchEvent(new CustomEvent("retry"));
  }
}

/** The site is away, or broke: keep asking, ever more patiently. */
function askLater() {
  const delay = Math.min(RETRY_FIRST_MS * 2 ** failures, RETRY_MAX_MS);
  failures += 1;
  if (failures > 1) {
    const words = "Still trying to reach the site …";
    current().querySelector("[data-waiting-words]").textContent = words;
    announcer.textContent = words;
  }
  setTimeout(ask, delay);
}

document.addEventListener("htmx:sendError", askLater);
document.addEventListener("htmx:timeout", askLater);
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 404) {
    // Deleted or expired meanwhile: let the site say so on a whole page.
    location.reload();
  } else {
    askLater();
  }
});
document.addEventListener("htmx:afterSwap", () => {
  failures = 0;
  if (!waits()) {
    announce();
  }
});
// Timers sleep in a hidden tab: ask as soon as somebody looks again.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    ask();
  }
});

function announce() {
  const headline = current().querySelector("[data-headline]").textContent;
  document.title = `${headline} · Mien`;
  const faces = [...current().querySelectorAll(".face-link")].map((link) =>
    link.textContent.replace(/\s+/g, " ").trim(),
  );
  announcer.textContent = [headline, ...faces.slice(0, 5)].join(". ");
}

// Cards and boxes: pointing at one, or moving the focus there, shows the other.
// Delegated, because both are exchanged when the result arrives.

const numberOf = (node) =>
  node instanceof Element ? (node.closest("[data-face]")?.dataset.face ?? null) : null;

function highlight(number) {
  for (const node of current().querySelectorAll("[data-face]")) {
    node.classList.toggle("is-active", node.dataset.face === number);
  }
  current()
    .querySelector(".boxes")
    ?.classList.toggle("has-active", number !== null);
}

document.addEventListener("pointerover", (event) => highlight(numberOf(event.target)));
document.addEventListener("focusin", (event) => highlight(numberOf(event.target)));
document.addEventListener("focusout", () => highlight(null));

document.addEventListener("click", (event) => {
  const box = event.target instanceof Element && event.target.closest(".box");
  if (box) {
    event.preventDefault();
    focusCard(box.dataset.face);
  }
});

function focusCard(number) {
  const card = document.querySelector(`#face-${number}`);
  card?.querySelector(".face-link").focus({ preventScroll: true });
  card?.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

// Arrow keys walk from face to face once one of them has the focus.
document.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  const here = event.target instanceof Element && event.target.closest(".face-link");
  if (step && here) {
    const links = [...current().querySelectorAll(".face-link")];
    const next = links[links.indexOf(here) + step];
    if (next) {
      event.preventDefault();
      focusCard(numberOf(next));
    }
  } else if (event.key === "Escape") {
    current().querySelector("[data-confirm]")?.removeAttribute("open");
  }
});
