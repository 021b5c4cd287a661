// Runs before the first paint, hence a plain blocking script and not a module: marks
// the page as scripted and brings back the theme that was chosen here before.
(() => {
  const root = document.documentElement;
  root.dataset.js = "";
  let theme = null;
  try {
    theme = localStorage.getItem("mien-theme");
  } catch {
    // Storage is switched off in this browser: the system's theme it is.
  }
  if (theme === "light" || theme === "dark") {
    root.dataset.theme = theme;
  }
})();
