// Completion in the line under the text: ":" and the beginning of a name offers emoji, "#" traces. The arrow keys choose,
// Tab or Enter takes, Escape closes.

import { isComposing } from "./keys.js";
import { type } from "./markdown.js";

// The sign before the word -> (word) => what can take the place of both, by and by: {text, shown}.
const sources = {
  ":": async (word) => {
    const options = word.length < 2 ? [] : await ask("/emoji", word);
    return options.map(({ value, text }) => ({ text: value, shown: `${value} ${text}` }));
  },
  "#": async (word) => {
    const names = (await ask("/traces/names", word)).map(({ value }) => `#${value}`);
    return names.filter((name) => !/\s/.test(name)).map((name) => ({ text: name, shown: name })); // others end early
  },
};

const [latest, whole] = ["this:replace", "this:queue all"].map((sync) => {
  const asker = Object.assign(document.createElement("div"), { hidden: true });
  asker.setAttribute("hx-sync", sync);
  document.body.append(asker);
  return asker;
});

const ask = (path, q, source = latest) =>
  new Promise((resolve) => {
    const named = (html) => {
      const made = document.createElement("template");
      made.innerHTML = html;
      resolve([...made.content.querySelectorAll("option")]);
    };
    htmx.ajax("POST", path, { source, swap: "none", values: { q }, named });
  });
document.addEventListener("htmx:after:request", ({ detail: { ctx } }) => {
  if (ctx.named && ctx.response.status === 200) ctx.named(ctx.text);
});

let open = null; // {field, start, choices, at}
const list = Object.assign(document.createElement("div"), { id: "offers", className: "completions", role: "listbox" });

const before = ({ selectionStart: at, value }) => value.slice(Math.max(0, at - 40), at);

/** What is being completed at the caret: where its sign stands, the sign, and the word so far. */
function wordAt(field) {
  const { selectionStart: at, selectionEnd } = field;
  if (at !== selectionEnd) return null;
  const [, sign, word] = before(field).match(/(?:^|[\s(])([^\s\p{L}\p{N}_])([\p{L}\p{N}_+-]+)$/u) ?? [];
  return sign in sources ? { sign, word, start: at - word.length - 1 } : null;
}

function close() {
  if (!open) return;
  for (const name of ["aria-activedescendant", "aria-controls", "aria-autocomplete"]) open.field.removeAttribute(name);
  list.parentNode?.classList.remove("has-completions");
  list.remove();
  open = null;
}

function show(field, start, choices) {
  const foot = field.form?.querySelector(".form-actions");
  if (!choices.length || !foot) return close();
  if (open?.field !== field) close();
  open = { field, start, choices, at: 0 };
  list.ariaLabel = field.dataset.completionsLabel ?? "";
  list.replaceChildren(...choices.map(optionOf));
  foot.append(list);
  foot.classList.add("has-completions");
  field.ariaAutoComplete = "list";
  field.setAttribute("aria-controls", list.id);
  choose(0);
}

const optionOf = ({ shown: textContent }, number) =>
  Object.assign(document.createElement("span"), {
    id: `offer-${number}`,
    className: "text-button",
    role: "option",
    textContent,
  });

function choose(at) {
  open.at = (at + open.choices.length) % open.choices.length;
  const chosen = list.children[open.at];
  for (const option of list.children) option.ariaSelected = option === chosen;
  open.field.setAttribute("aria-activedescendant", chosen.id);
  chosen.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function take(number) {
  const { field, start, choices } = open;
  const at = field.selectionStart;
  close();
  type(field, choices[number].text, start, at);
}

document.addEventListener("input", async ({ target: field, isComposing: isComposed }) => {
  if (!field.matches?.("textarea[data-autogrow]") || isComposed) return;
  const [, name] = before(field).match(/:([\p{L}\p{N}_+-]+):$/u) ?? [];
  if (name) return replaceName(field, name);
  const asked = wordAt(field);
  const choices = asked ? await sources[asked.sign](asked.word) : [];
  const now = wordAt(field);
  if (asked?.word !== now?.word || asked?.start !== now?.start) return; // something was typed meanwhile
  if (now) show(field, now.start, choices);
  else close();
});

/** A name between colons becomes its emoji, also when more was typed until it was known. */
async function replaceName(field, name) {
  close();
  const end = field.selectionStart;
  const options = await ask("/emoji", name, whole);
  const emoji = options.find(({ text }) => text === name.toLowerCase().replaceAll("_", " "))?.value;
  const start = field.value.lastIndexOf(`:${name}:`, end); // what stood before it may have become shorter
  if (!emoji || start < 0) return;
  const caret = field.selectionStart + emoji.length - name.length - 2;
  type(field, emoji, start, start + name.length + 2);
  field.setSelectionRange(caret, caret);
}

document.addEventListener(
  "keydown",
  (event) => {
    if (!open || event.target !== open.field || isComposing(event)) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const { key } = event;
    const { field, start, choices, at } = open;
    const step = { ArrowDown: 1, ArrowUp: -1 }[key];
    // What stands there whole needs no taking: then Enter begins a line.
    if (key === "Enter" && field.value.slice(start, field.selectionStart) === choices[at].text) return close();
    if (step) choose(at + step);
    else if (key === "Enter" || key === "Tab") take(at);
    else if (key === "Escape") close();
    else {
      if (/^(Arrow|Home|End|Page)/.test(key)) close();
      return;
    }
    event.preventDefault();
  },
  true,
);

// The field keeps the focus, and on a phone its keyboard.
list.addEventListener("pointerdown", (event) => event.preventDefault());
list.addEventListener("click", ({ target }) => {
  const number = [...list.children].indexOf(target.closest("[role=option]"));
  if (number >= 0) take(number);
});
document.addEventListener("focusout", ({ target }) => target === open?.field && close());
