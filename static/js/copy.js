// Buttons that copy the text of another element; where the browser gives no access to
// the clipboard, they select it instead, and say so.

for (const button of document.querySelectorAll("[data-copy]")) {
  const words = button.textContent;
  const status = document.createElement("span");
  status.className = "small";
  status.setAttribute("role", "status");
  button.after(status);
  button.addEventListener("click", async () => {
    const source = document.querySelector(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      getSelection().selectAllChildren(source);
      status.classList.remove("visually-hidden");
      status.textContent = "Selected: press Ctrl+C, or ⌘C on a Mac.";
      return;
    }
    button.textContent = button.dataset.copied;
    status.classList.add("visually-hidden");
    status.textContent = button.dataset.copied;
    setTimeout(() => {
      button.textContent = words;
      status.textContent = "";
    }, 2000);
  });
}
