// Fetches the page anew every few seconds and puts in what has changed, unless nobody can see it.
"use strict";
const PAUSE = 5000; // milliseconds
async function refresh() {
  try {
    const answer = document.hidden ? null : await fetch(location.href, { redirect: "error", cache: "no-store" });
    if (answer && answer.ok) {
      const main = document.querySelector("main");
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
      const held = document.activeElement !== main && main.contains(document.activeElement); // by the keyboard
      if (fresh && !held && getSelection().isCollapsed && fresh.innerHTML !== main.innerHTML)
        main.replaceChildren(...document.adoptNode(fresh).childNodes);
    }
    document.body.classList.toggle("stale", Boolean(answer && !answer.ok));
  } catch {
    document.body.classList.add("stale"); // the pages are away: what is shown is old
  }
  setTimeout(refresh, PAUSE);
}
setTimeout(refresh, PAUSE);
