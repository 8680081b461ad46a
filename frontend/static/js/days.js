// What a day's page does with time: it says when its day is over, and opens the calendar over itself.

const LOOK_EVERY = 60_000; // a machine that slept, or whose clock was set, is noticed within a minute

const desk = document.querySelector("[data-ends]");
if (desk) {
  // The server's clock decides, and only how far this machine's is from it.
  const ahead = Number(desk.dataset.now) - Date.now();
  let timer;
  const look = () => {
    const left = Number(desk.dataset.ends) - (Date.now() + ahead);
    for (const line of document.querySelectorAll(".turned")) line.hidden = left > 0;
    clearTimeout(timer);
    timer = setTimeout(look, left > 0 ? Math.min(left + 20, LOOK_EVERY) : LOOK_EVERY);
  };
  document.addEventListener("visibilitychange", look);
  document.addEventListener("htmx:after:swap", look);
  look();
}

const calendar = document.getElementById("calendar");
document.addEventListener("htmx:after:swap", ({ detail: { ctx } }) => {
  if (!calendar || ctx.target !== calendar) return;
  calendar.togglePopover(true);
  const here = location.pathname.replace("/d/today", "");
  const day = calendar.querySelector(here ? `[href="${here}"]` : "[aria-current]");
  day?.classList.add("here");
  (day ?? calendar.querySelector(".turns a")).focus();
});
