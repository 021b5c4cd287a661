// For a part of a page that htmx exchanges until it has no hx-get any more: keeps
// asking where the site is away, and asks at once when somebody looks again.

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 15_000;

/**
 * @param {string} selector of the part, which htmx exchanges as a whole
 * @param {{
 *   onChange: (part: Element, isDone: boolean) => void,
 *   onTrouble: (part: Element) => void,
 * }} handlers `onTrouble` from the second failure in a row on
 */
export function keepAsking(selector, { onChange, onTrouble }) {
  const current = () => document.querySelector(selector);
  const waits = () => current().hasAttribute("hx-get");
  let failures = 0;
  let focused = null;
  let scrolled = [];

  function ask() {
    if (waits()) {
      current().dispatchEvent(new CustomEvent("retry"));
    }
  }

  function askLater() {
    setTimeout(ask, Math.min(RETRY_FIRST_MS * 2 ** failures, RETRY_MAX_MS));
    failures += 1;
    if (failures > 1) {
      onTrouble(current());
    }
  }

  document.addEventListener("htmx:sendError", askLater);
  document.addEventListener("htmx:timeout", askLater);
  // The browser's own Stop.
  document.addEventListener("htmx:sendAbort", askLater);
  document.addEventListener("htmx:responseError", (event) => {
    if ([403, 404].includes(event.detail.xhr.status)) {
      // Deleted, expired or no longer theirs: let the site say so on a whole page.
      location.reload();
    } else {
      askLater();
    }
  });
  // Not what was asked for: the page of a network that wants a log-in first, say.
  document.addEventListener("htmx:beforeSwap", ({ detail }) => {
    if (detail.shouldSwap) {
      const page = new DOMParser().parseFromString(detail.serverResponse, "text/html");
      if (!page.querySelector(selector)) {
        detail.shouldSwap = false;
        askLater();
        return;
      }
      focused = document.activeElement;
      scrolled = scrolledIn(current());
    }
  });
  document.addEventListener("htmx:afterSwap", () => {
    // What htmx keeps loses the focus where a browser cannot move it in one step.
    if (focused.isConnected && focused !== document.activeElement) {
      focused.focus({ preventScroll: true });
    }
    for (const place of scrolled) {
      scrollBack(place);
    }
    failures = 0;
    onChange(current(), !waits());
  });
  // Timers sleep in a hidden tab.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) {
      ask();
    }
  });
}

/** How far each node with an id is scrolled, and whether to its end: one that shows
 * all of itself is at its end, too. */
function scrolledIn(part) {
  return [...part.querySelectorAll("[id]")]
    .filter((node) => getComputedStyle(node).overflowY === "auto")
    .map(({ id, scrollTop, clientHeight, scrollHeight }) => {
      // Browsers round: the end may be a fraction of a pixel away.
      return { id, scrollTop, isAtEnd: scrollTop + clientHeight > scrollHeight - 2 };
    });
}

/** Where one stood: at its end, one goes along with what has come. */
function scrollBack({ id, scrollTop, isAtEnd }) {
  const node = document.getElementById(id);
  if (node) {
    node.scrollTop = isAtEnd ? node.scrollHeight : scrollTop;
  }
}
