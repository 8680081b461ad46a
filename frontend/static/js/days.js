// What a day's page does with time: it says when its day is over, and opens the calendar over itself.

import { hold } from "./requests.js";

const LOOK_EVERY = 60_000; // a machine that slept, or whose clock was set, is noticed within a minute

const desk = document.querySelector("[data-ends]");
if (desk) {
  // The server's clock decides, and only how far this machine's is from it.
  const ahead = Number(desk.dataset.now) - Date.now();
  let timer;
  const look = () => {
    const left = Number(desk.dataset.ends) - (Date.now() + ahead);
    for (const line of document.querySelectorAll(".new-day-note")) line.hidden = left > 0;
    clearTimeout(timer);
    timer = setTimeout(look, left > 0 ? Math.min(left + 20, LOOK_EVERY) : LOOK_EVERY);
  };
  document.addEventListener("visibilitychange", look);
  document.addEventListener("htmx:after:swap", look);
  look();
}

// Heights on a long day are guessed until they were seen (day.css): who comes back is led to the entry that was read,
// whose id the browser keeps with the address.
const entries = () => [...document.querySelectorAll("[data-day] > article")];
if (entries().length > 12) {
  const topOf = (entry) => entry.getBoundingClientRect().top;
  const { at, top } = history.state ?? {};
  const place = document.getElementById(at);
  if (place) hold(() => window.scrollBy(0, topOf(place) - top));
  const remember = () => {
    const read = entries().findLast((entry) => topOf(entry) <= 0) ?? entries()[0];
    if (!read) return;
    history.scrollRestoration = "manual";
    history.replaceState({ at: read.id, top: topOf(read) }, "");
  };
  let resting;
  document.addEventListener("scrollend", () => {
    clearTimeout(resting);
    resting = setTimeout(remember, 100); // when what came near is laid out
  });
}

const calendar = document.getElementById("calendar");
document.addEventListener("htmx:after:swap", ({ detail: { ctx } }) => {
  if (!calendar || ctx.target !== calendar) return;
  calendar.togglePopover(true);
  const here = location.pathname.replace("/d/today", "");
  const day = calendar.querySelector(here ? `[href="${here}"]` : "[aria-current]");
  day?.classList.add("focused-day");
  (day ?? calendar.querySelector(".month-nav a")).focus();
});
