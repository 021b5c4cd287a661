// A key presses the button that names it (data-key), unless somebody is typing or has
// switched the keys off: what listens to speech types letters, too.

const KEYS_KEY = "mien-keys";

const choice = document.querySelector("[data-keys]");
try {
  choice.checked = localStorage.getItem(KEYS_KEY) !== "off";
} catch {
  // Storage is switched off: with the keys, then.
}
choice.closest("label").hidden = false;
choice.addEventListener("change", () => {
  try {
    localStorage.setItem(KEYS_KEY, choice.checked ? "on" : "off");
  } catch {
    // The choice holds for this page alone.
  }
});

export function isTyping(target) {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable ||
      target.matches("textarea, select, input:not([type=checkbox], [type=radio])"))
  );
}

export function buttonFor(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) {
    return null;
  }
  if (!choice.checked || isTyping(event.target)) {
    return null;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return document.querySelector(`[data-key="${CSS.escape(key)}"]`);
}

if (document.querySelector("#desk") === null) {
  document.addEventListener("keydown", (event) => {
    const button = buttonFor(event);
    if (button) {
      event.preventDefault();
      button.click();
    }
  });
}

// The grid: how many are selected, and all or none at once.
const grid = document.querySelector("[data-grid]");
if (grid) {
  const boxes = [...grid.querySelectorAll("input[name=face]")];
  const words = grid.querySelector("[data-selected]");
  const count = () => boxes.filter((box) => box.checked).length;
  const say = () => {
    words.textContent = `${count()} selected`;
  };
  grid.addEventListener("change", say);
  grid.querySelector("[data-all]").addEventListener("click", () => {
    const select = count() < boxes.length;
    for (const box of boxes) {
      box.checked = select;
    }
    say();
  });
  grid.addEventListener("submit", (event) => {
    if (count() === 0) {
      event.preventDefault();
      words.textContent = "Select at least one face first";
    }
  });
  // Coming back by the browser's button may bring checked boxes along.
  say();
}
