// Keys: none takes one from the browser, and none but Escape and Ctrl+Enter does anything while writing.

import { leaveFocusMode, setFocusMode } from "./focus_mode.js";

const isMac = /mac|iphone|ipad/i.test(navigator.userAgentData?.platform ?? navigator.platform);
if (isMac) document.documentElement.dataset.keys = "mac";

const chosen = document.documentElement.dataset; // the settings of the writer

const isWriting = (element) => element.matches?.("input, textarea, select, [contenteditable]") ?? false;

// Where a bracket is typed with AltGr, Windows says Ctrl and Alt are down.
const isPlain = (event) => !event.metaKey && (event.getModifierState("AltGraph") || (!event.ctrlKey && !event.altKey));

/** The Enter that ends a composition is no key; Safari says so by the code 229 alone. */
export const isComposing = (event) => event.isComposing || event.keyCode === 229;

// Where other letters than Latin ones are typed, a key is known by its place.
const PLACES = { BracketLeft: "[", BracketRight: "]" };

export function letterOf({ key, code, shiftKey }) {
  if (code === "Slash" && (key === "." || (key === "," && shiftKey))) return shiftKey ? "?" : "/";
  if (!/^[^\0-\x7f]/.test(key) || /\p{Script=Latin}/u.test(key)) return key.length === 1 ? key.toLowerCase() : key;
  return PLACES[code] ?? code.match(/^Key(.)$/)?.[1].toLowerCase() ?? key;
}

const find = (selector) => document.querySelector(selector);

function search() {
  const field = find("[data-shortcut='/']");
  if (field?.checkVisibility()) field.focus();
  else location.assign("/search");
}

/** Something of the entry one is at: where the focus is, else what was jumped to, else the last of the page. */
function ofEntry(selector) {
  const all = [...document.querySelectorAll("#entries article:not(.reply)")];
  const here = document.activeElement?.closest("article:not(.reply)") ?? all.find((entry) => entry.matches(":target"));
  return (here ?? all.at(-1))?.querySelector(`:is(:scope > .actions, :scope > .body > .actions) > ${selector}`);
}

// What a key does: the element it needs, and what is done with it. Any other key presses what bears it as `data-key`.
const actions = {
  "/": [() => find(".bar"), search],
  "?": [() => find("#shortcuts"), (sheet) => sheet.showModal()],
  n: [() => find("#write"), (field) => field.focus()],
  f: [() => find("#composer"), (form) => setFocusMode(form, true)],
  e: [() => ofEntry("[href$='/edit']"), (link) => link.click()],
  r: [() => ofEntry("[formaction$='/replies']"), (button) => button.click()],
};
const other = (key) => [() => find(`[data-key="${key}"]`), (element) => element.click()];
const actionOf = (key) => (Object.hasOwn(actions, key) ? actions[key] : other(key));

/** Whether a key does anything on this page. */
export const can = (key) => Boolean(actionOf(key)[0]());

export function press(key) {
  const [find, does] = actionOf(key);
  const element = find();
  if (element) does(element);
}

/** Stops a reply that is being written, else closes what was opened last. */
function stopOrClose(target) {
  if (leaveFocusMode()) return;
  const stops = document.querySelectorAll("[data-stop]");
  if (stops.length) return stops[stops.length - 1].click();
  const opened = target.closest?.("details[open]");
  if (opened) {
    opened.open = false;
    return opened.querySelector("summary").focus();
  }
  const editing = target.closest?.("form.edit");
  if (editing && !("draft" in editing.dataset) && target.value === target.defaultValue)
    return editing.querySelector("[data-cancel]").click();
  if (target.matches?.("textarea, [type=search]") && !target.value) target.blur(); // then the keys below are within reach
}

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.defaultPrevented || isComposing(event) || document.querySelector("dialog[open], :popover-open")) return;
  const keeps = event.ctrlKey || event.metaKey || (chosen.enter === "keep" && !event.shiftKey && !event.altKey);
  if (key === "Enter" && keeps && target.matches?.("textarea")) {
    event.preventDefault();
    target.form?.requestSubmit();
  } else if (key === "Escape") {
    stopOrClose(target);
  } else if (chosen.letters !== "off" && !isWriting(target) && isPlain(event)) {
    const letter = letterOf(event);
    if (!/^[a-z[\]/?]$/.test(letter) || (event.shiftKey && /\p{L}/u.test(key)) || !can(letter)) return;
    event.preventDefault();
    press(letter);
  }
});
