// The switch in the header: from what is seen now to the other, remembered here.

const root = document.documentElement;

function currentTheme() {
  if (root.dataset.theme) {
    return root.dataset.theme;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

for (const button of document.querySelectorAll("[data-theme-switch]")) {
  button.addEventListener("click", () => {
    const theme = currentTheme() === "dark" ? "light" : "dark";
    root.dataset.theme = theme;
    try {
      localStorage.setItem("mien-theme", theme);
    } catch {
      // Storage is switched off: the choice holds for this page alone.
    }
  });
}
