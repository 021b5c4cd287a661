// The page of a run: keeps asking until it has ended, and says when it has. Without
// this file the page reloads itself.

import { keepAsking } from "../poll.js";

const announcer = document.querySelector("#announcer");

keepAsking("#run", {
  onChange(part, isDone) {
    if (isDone) {
      const headline = part.querySelector("[data-headline]").textContent;
      document.title = `${headline} · Mien`;
      announcer.textContent = headline;
    }
  },
  onTrouble(part) {
    const words = "Still trying to reach the site …";
    part.querySelector("[data-waiting-words]").textContent = words;
    announcer.textContent = words;
  },
});
