// What a text area knows of Markdown: lists go on, Tab makes a sub-item, Ctrl or ⌘ with B, I and K mark what is selected.
// Every change goes through the browser, so that its own undo takes it back.

import { isComposing, letterOf } from "./keys.js";

const ITEM = /^([ \t]*)(?:([-*+])|(\d{1,9})([.)]))([ \t]+)(?:(\[)[ xX]\][ \t]+)?/;
const QUOTE = /^(?:[ \t]*>[ \t]?)+/;
// A line, or what is selected of it: what makes it an item, a quotation or a heading, its words, and blanks.
const LINE = /^((?:[ \t]*>)*[ \t]*(?:(?:[-*+]|\d{1,9}[.)]|#{1,6})[ \t]+(?:\[[ xX]\][ \t]+)?)?)(.*?)([ \t]*)$/;
export const isAddress = (text) => /^https?:\/\/\S+$/i.test(text);

/** Puts text in place of what stands from `start` to `end`, as if it had been typed. */
export function type(field, text, start = field.selectionStart, end = field.selectionEnd) {
  field.setSelectionRange(start, end);
  if (start === end && !text) return;
  // Chromium takes half a minute to type some thousand lines, and no time for the same as HTML. Others refuse that.
  const html = text.length > 4000 && text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  if (html && document.execCommand("insertHTML", false, html)) return;
  if (document.execCommand(text ? "insertText" : "delete", false, text)) return;
  field.setRangeText(text, start, end, "end");
  field.dispatchEvent(new InputEvent("input", { bubbles: true, data: text }));
}

const lineStart = (text, at) => text.lastIndexOf("\n", at - 1) + 1;
const lineEnd = (text, at) => (text.indexOf("\n", at) < 0 ? text.length : text.indexOf("\n", at));
const isInFence = (text) => (text.match(/^[ \t]*(```|~~~)/gm)?.length ?? 0) % 2 === 1;
const widthOf = (blanks) => blanks.replaceAll("\t", "    ").length;

function continueList(field) {
  const { selectionStart: at, selectionEnd, value } = field;
  const start = lineStart(value, at);
  if (at !== selectionEnd || isInFence(value.slice(0, start))) return false;
  const line = value.slice(start, at);
  if (/^([-*] ?){3,}$/.test(line)) return false; // a rule
  const quote = line.match(QUOTE)?.[0] ?? "";
  const item = line.slice(quote.length).match(ITEM);
  const mark = quote + (item?.[0] ?? "");
  if (!mark.trim()) return false;
  if (line === mark && at === lineEnd(value, at)) {
    // An empty item ends the list, and an empty line keeps what follows out of it.
    type(field, item && quote ? quote : start ? "\n" : "", start, at);
  } else {
    const [, blanks, bullet, number, point, gap, box] = item ?? [];
    const next = item ? `${blanks}${bullet ?? Number(number) + 1 + point}${gap}${box ? "[ ] " : ""}` : "";
    type(field, `\n${quote}${next}`);
  }
  return true;
}

/** Makes items sub-items of the one before them, or takes that back; false where neither is a list's business. */
function indent(field, isBack) {
  const { selectionStart, selectionEnd, value } = field;
  const start = lineStart(value, selectionStart);
  const end = lineEnd(value, Math.max(selectionStart, selectionEnd - 1));
  const lines = value.slice(start, end).split("\n");
  const item = lines[0].match(ITEM);
  if (!item || isInFence(value.slice(0, start))) return false;
  const above = value.slice(0, start).split("\n").slice(0, -1).reverse();
  const own = widthOf(item[1]);
  let width;
  if (isBack) {
    const parent = above.map((line) => line.match(ITEM)).find((other) => other && widthOf(other[1]) < own);
    if (!own) return false;
    width = parent ? widthOf(parent[1]) : 0;
  } else {
    const other = above[0]?.match(ITEM);
    if (!other || widthOf(other[1]) < own) return false; // there is nothing it could be under: Tab moves on
    width = widthOf(other[1]) > own ? widthOf(other[1]) : own + other[0].trimStart().replace(/\[.\][ \t]*$/, "").length;
  }
  const moved = lines.map((line) => {
    const blanks = line.match(/^[ \t]*/)[0];
    return " ".repeat(Math.max(0, widthOf(blanks) + width - own)) + line.slice(blanks.length);
  });
  type(field, moved.join("\n"), start, end);
  const shift = moved[0].length - lines[0].length;
  if (selectionStart === selectionEnd) field.setSelectionRange(selectionStart + shift, selectionStart + shift);
  else field.setSelectionRange(start, start + moved.join("\n").length);
  return true;
}

/** Puts marks around the words of each line, or takes them away: n stars make italics when odd, bold from two on. */
function emphasise(field, mark) {
  const { selectionStart: start, selectionEnd: end, value } = field;
  const size = mark.length;
  const isMarked = (stars) => (size === 1 ? stars % 2 === 1 : stars >= 2);
  const text = value.slice(start, end);
  const turned = text.split("\n").map((line) => {
    const [, before, words, after] = line.match(LINE);
    if (text && !words) return line;
    const stars = words.match(/^(\*+)[^*]+\1$/)?.[1].length ?? 0;
    return before + (isMarked(stars) ? words.slice(size, -size) : mark + words + mark) + after;
  });
  const [left, right] = [value.slice(0, start).match(/\**$/)[0].length, value.slice(end).match(/^\**/)[0].length];
  if (!text && !left && isMarked(right)) return field.setSelectionRange(end + size, end + size); // it ends here
  const around = Math.min(left, right);
  const out = isMarked(around) ? size : 0;
  type(field, out ? text : turned.join("\n"), start - out, end + out);
  const caret = text ? field.selectionEnd : start + (out ? -size : size);
  field.setSelectionRange(text ? start - out : caret, caret);
}

/** Makes what is selected a link, to `address` where it is known; the caret goes where something is missing. */
export function link(field, address = "") {
  const { selectionStart: start, selectionEnd: end, value } = field;
  const text = value.slice(start, end);
  const made = text.match(/^\[([^\]]*)\]\(\S*\)$/);
  if (made && !address) return type(field, made[1]); // a link already: its words alone
  const words = isAddress(text) ? "" : text;
  const to = address || (words ? "" : text);
  type(field, `[${words}](${to})`, start, end);
  const caret = !words ? start + 1 : to ? field.selectionEnd : start + words.length + 3;
  field.setSelectionRange(caret, caret);
}

document.addEventListener("keydown", (event) => {
  const { key, target: field } = event;
  if (!field.matches?.("textarea[data-autogrow]") || event.defaultPrevented || isComposing(event) || event.altKey)
    return;
  const isMac = document.documentElement.dataset.keys === "mac";
  const isPressed = isMac ? event.metaKey && !event.ctrlKey : event.ctrlKey && !event.metaKey;
  const letter = isPressed && !event.shiftKey ? letterOf(event) : "";
  const keeps = document.documentElement.dataset.enter === "keep"; // then Shift and Enter begin a new line
  let done = true;
  if (letter === "b" || letter === "i") emphasise(field, letter === "b" ? "**" : "*");
  else if (letter === "k" && field.selectionStart !== field.selectionEnd) link(field);
  else if (key === "Enter" && !event.ctrlKey && !event.metaKey && event.shiftKey === keeps) done = continueList(field);
  else if (key === "Tab" && !event.ctrlKey && !event.metaKey) done = indent(field, event.shiftKey);
  else done = false;
  if (done) event.preventDefault();
});

document.addEventListener("paste", async (event) => {
  const { target: field, clipboardData } = event;
  if (!field.matches?.("textarea[data-autogrow]")) return;
  const html = clipboardData.getData("text/html");
  const plain = clipboardData.getData("text/plain");
  const address = plain.trim();
  const isLink = isAddress(address) && field.selectionStart !== field.selectionEnd;
  if (!isLink && (isInFence(field.value.slice(0, field.selectionStart)) || !(html || /&|^\s*\d/m.test(plain)))) return;
  event.preventDefault();
  if (isLink) return link(field, address);
  const { textOf } = await import("./paste.js").catch(() => ({}));
  type(field, textOf?.(html, plain) ?? plain);
});
