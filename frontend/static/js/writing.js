// Fields that people write in.

import { revealEnd } from "./requests.js";

// Older browsers do not let a field grow with its text by CSS alone.
if (!CSS.supports("field-sizing", "content")) {
  const grow = () => {
    for (const field of document.querySelectorAll("[data-autogrow]")) {
      field.style.height = "auto";
      field.style.height = `${field.scrollHeight}px`;
    }
  };
  for (const name of ["input", "toggle", "htmx:after:swap"]) document.addEventListener(name, grow, true);
  grow();
}

// Today opens with the pen in hand, but not with a keyboard over half the screen, nor over what was jumped to.
// The attribute `autofocus` would scroll a long day to its end.
if (!location.hash && matchMedia("(pointer: fine)").matches) {
  document.querySelector("[data-autofocus]")?.focus({ preventScroll: true });
}

document.addEventListener(
  "toggle",
  ({ target }) => {
    if (!target.matches("details[open]")) return;
    const field = target.querySelector("textarea, .tag-form [name=name]");
    if (field && !field.defaultValue) field.focus(); // with a draft in it, it stood open from the beginning
    if (target.contains(document.activeElement)) revealEnd(target);
  },
  true,
);

const zoneHere = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
for (const field of document.querySelectorAll("[data-zone]")) field.value = zoneHere;

/** What a clock in a zone shows, or the zone itself if the browser does not know it. */
function clockIn(zone, time) {
  try {
    return new Date(time).toLocaleString("en", { timeZone: zone });
  } catch {
    return zone;
  }
}

const zoneQuestion = document.querySelector("[data-zone-question]");
if (zoneHere && zoneQuestion && zoneQuestion.dataset.dismissed !== zoneHere) {
  const times = [Date.now(), Date.now() + 182 * 86_400_000]; // zones may share one half of the year
  if (times.some((time) => clockIn(zoneHere, time) !== clockIn(zoneQuestion.dataset.zoneQuestion, time))) {
    for (const button of zoneQuestion.querySelectorAll("button")) button.value = zoneHere;
    for (const name of zoneQuestion.querySelectorAll("[data-here]")) name.textContent = zoneHere.replaceAll("_", " ");
    zoneQuestion.hidden = false;
  }
}
