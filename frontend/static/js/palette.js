// The palette: Ctrl or ⌘ with K opens one field; the server says what its words may mean, the keys choose.

import { can, isComposing, letterOf, press } from "./keys.js";

const palette = document.getElementById("palette");
const field = document.getElementById("palette-query");
const list = document.getElementById("palette-results");
const options = () => [...list.querySelectorAll("[role=option]")];
let at = 0;

function choose(number) {
  const all = options();
  at = (number + all.length) % all.length || 0;
  for (const option of all) option.ariaSelected = option === all[at];
  field.setAttribute("aria-activedescendant", all[at]?.id ?? "");
  all[at]?.scrollIntoView({ block: "nearest" });
}

function open() {
  field.value = "";
  palette.showModal();
  htmx.process(field); // a key may come before htmx has looked at the page
  field.dispatchEvent(new Event("palette-open"));
}

document.addEventListener("keydown", (event) => {
  const isPressed = event.ctrlKey !== event.metaKey && !event.altKey && !event.shiftKey;
  if (!palette || event.defaultPrevented || !isPressed || letterOf(event) !== "k") return;
  event.preventDefault(); // on selected text markup.js has made a link of it before
  if (palette.open) palette.close();
  else if (!document.querySelector("dialog[open]")) open();
});

field?.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (isComposing(event) || (!step && event.key !== "Enter")) return;
  event.preventDefault();
  if (step) choose(at + step);
  else options()[at]?.click();
});

document.addEventListener("htmx:after:swap", ({ detail: { ctx } }) => {
  if (ctx.target !== list) return;
  for (const option of list.querySelectorAll("[data-press]:not([href])")) {
    if (!can(option.dataset.press)) option.remove(); // nothing on this page does it
  }
  choose(0);
});

list?.addEventListener("click", (event) => {
  const option = event.target.closest("[role=option]");
  if (!option) return;
  const key = option.dataset.press;
  if (key && can(key)) {
    event.preventDefault();
    palette.close();
    press(key);
  } else if (option.hash && option.pathname === location.pathname) palette.close();
});
palette?.addEventListener("click", ({ target }) => target === palette && palette.close());
