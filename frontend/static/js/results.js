// Found places by arrow keys: from the field to the first, among them, and back to the field. Tab goes there too, Enter
// opens: they are links. Keys with a modifier, and those of an input method, are the browser's.

import { isComposing } from "./keys.js";

const field = () => document.querySelector("form.ask [type='search']");
const places = () => [...document.querySelectorAll("#results :is(.hit, .more button)")];

function beside(element, by) {
  const all = places();
  const at = all.indexOf(element);
  if (at < 0 && element !== field()) return null;
  return at + by === -1 ? field() : all[at + by];
}

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.defaultPrevented || isComposing(event)) return;
  if (event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return;
  const by = { ArrowDown: 1, ArrowUp: -1 }[key];
  const next = by ? beside(target, by) : key === "Escape" && places().includes(target) && field();
  if (!next) return; // nothing there: the key is the page's
  event.preventDefault();
  next.focus();
});

// What is typed replaces the list. Who went into it stays with their place, or goes back to the field when it is gone;
// who asked for more goes on with the first that is new.
let held;
let shown = 0;

document.addEventListener("htmx:before:swap", () => {
  const focused = document.activeElement;
  held = places().includes(focused) ? focused : undefined;
  shown = held?.matches(".more button") ? document.querySelectorAll("#results .hit").length : 0;
});

document.addEventListener("htmx:after:swap", () => {
  if (!held || places().includes(document.activeElement)) return;
  const next = shown ? document.querySelectorAll("#results .hit")[shown] : document.getElementById(held.id);
  (next ?? field())?.focus();
  held = undefined;
});
