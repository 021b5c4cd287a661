// Runs before the first paint, hence a plain blocking script and not a module: marks
// the page as scripted, for as long as its scripts arrive, and brings back the theme
// that was chosen here before.
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
  // A script that did not arrive would leave buttons that do nothing: then the page is
  // one without scripts, and what htmx would exchange is asked for as a whole.
  addEventListener(
    "error",
    ({ target }) => {
      if (target instanceof HTMLScriptElement) {
        delete root.dataset.js;
        setTimeout(() => {
          if (document.querySelector("[hx-get]")) {
            location.reload();
          }
        }, 2000);
      }
    },
    { capture: true },
  );
})();
