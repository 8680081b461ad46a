// Keys: none takes one from the browser, and none but Escape and Ctrl+Enter does anything while writing.

import { comeBack } from "./desk.js";

const isMac = /mac|iphone|ipad/i.test(navigator.userAgentData?.platform ?? navigator.platform);
if (isMac) document.documentElement.dataset.keys = "mac";

const chosen = document.documentElement.dataset; // the settings of the writer

const isWriting = (element) => element.matches?.("input, textarea, select, [contenteditable]") ?? false;

// Where a bracket is typed with AltGr, Windows says Ctrl and Alt are down.
const isPlain = (event) => !event.metaKey && (event.getModifierState("AltGraph") || (!event.ctrlKey && !event.altKey));

function search() {
  const field = document.querySelector("[data-shortcut='/']");
  if (field?.checkVisibility()) field.focus();
  else if (document.querySelector(".bar")) location.assign("/search");
}

/** Stops a reply that is being written, else closes what was opened last. */
function stopOrClose(target) {
  if (comeBack()) return;
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
  if (target.matches?.("textarea") && !target.value) target.blur(); // then the keys below are within reach
}

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open], :popover-open")) return;
  const keeps = event.ctrlKey || event.metaKey || (chosen.enter === "keep" && !event.shiftKey && !event.altKey);
  if (key === "Enter" && keeps && target.matches?.("textarea")) {
    event.preventDefault();
    target.form?.requestSubmit();
  } else if (key === "Escape") {
    stopOrClose(target);
  } else if (chosen.letters !== "off" && !isWriting(target) && isPlain(event)) {
    if (key === "/") {
      event.preventDefault();
      search();
    } else if (key === "?") {
      event.preventDefault();
      document.getElementById("shortcuts")?.showModal();
    } else if (/^[a-z[\]]$/.test(key)) {
      document.querySelector(`[data-key="${key}"]`)?.click();
    }
  }
});
