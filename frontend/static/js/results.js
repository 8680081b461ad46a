// Found places by arrow keys: down from the field to the first, up and down among them, up or Escape back to the field.
// Tab goes there too, Enter opens: they are links. Keys with a modifier, and those of an input method, are the browser's.

const field = () => document.querySelector("form.ask [type='search']");
const places = () => [...document.querySelectorAll("#results :is(.hit, .more button)")];

function beside(element, by) {
  const all = places();
  if (element === field()) return by > 0 ? all[0] : undefined;
  const at = all.indexOf(element);
  if (at < 0) return undefined;
  return at + by < 0 ? field() : all[at + by];
}

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.defaultPrevented || event.isComposing) return;
  if (event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return;
  let next;
  if (key === "ArrowDown") next = beside(target, 1);
  else if (key === "ArrowUp") next = beside(target, -1);
  else if (key === "Escape" && places().includes(target)) next = field();
  if (!next) return; // nothing there: the key is the page's
  event.preventDefault();
  next.focus();
});

// What is typed replaces the list. Who went into it meanwhile stays with their place, or goes back to the field when it
// is gone; who asked for more goes on with the first that is new.
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
