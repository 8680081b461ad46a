// Completion in the line under the text: ":" and the beginning of a name offers emoji, "#" traces. The arrow keys choose,
// Tab or Enter takes, Escape closes.

import { emojiLike, emojiOf } from "./emoji.js";
import { type } from "./markup.js";

const MOST = 6;
// The sign before the word -> (word) => what can take the place of both, or a promise of it: {text, shown}.
const sources = {
  ":": (word) =>
    word.length < 2
      ? []
      : emojiLike(word, MOST).map(([name, text]) => ({ text, shown: `${text} ${name.replaceAll("_", " ")}` })),
  "#": (word) => new Promise((resolve) => askForTraces(word, resolve)),
};

const asker = document.createElement("div"); // only the latest question is answered
asker.hidden = true;
asker.setAttribute("hx-sync", "this:replace");
document.body.append(asker);

function askForTraces(q, resolve) {
  const named = (html) => {
    const made = document.createElement("template");
    made.innerHTML = html;
    const names = [...made.content.querySelectorAll("option")].map((option) => option.value);
    const words = names.filter((name) => !/\s/.test(name)).slice(0, MOST); // others cannot stand in a text
    resolve(words.map((name) => ({ text: `#${name}`, shown: `#${name}` })));
  };
  htmx.ajax("POST", "/traces/names", { source: asker, swap: "none", values: { q }, named });
}
document.addEventListener("htmx:after:request", ({ detail: { ctx } }) => {
  if (ctx.named && ctx.response.status === 200) ctx.named(ctx.text);
});

let open = null; // {field, start, choices, at}
const list = Object.assign(document.createElement("div"), { id: "offers", className: "offers", role: "listbox" });

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
  list.parentNode?.classList.remove("offering");
  list.remove();
  open = null;
}

function show(field, start, choices) {
  const foot = field.form?.querySelector(".foot");
  if (!choices.length || !foot) return close();
  if (open?.field !== field) close();
  open = { field, start, choices, at: 0 };
  list.ariaLabel = field.dataset.offers ?? "";
  list.replaceChildren(...choices.map(optionOf));
  foot.append(list);
  foot.classList.add("offering");
  field.ariaAutoComplete = "list";
  field.setAttribute("aria-controls", list.id);
  choose(0);
}

const optionOf = ({ shown: textContent }, number) =>
  Object.assign(document.createElement("span"), {
    id: `offer-${number}`,
    className: "word",
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

document.addEventListener("input", async ({ target: field, isComposing }) => {
  if (!field.matches?.("textarea[data-grows]") || isComposing) return;
  const [whole, name] = before(field).match(/:([\w+-]+):$/) ?? [];
  if (name && emojiOf(name)) {
    close();
    return type(field, emojiOf(name), field.selectionStart - whole.length);
  }
  const asked = wordAt(field);
  const choices = asked ? await sources[asked.sign](asked.word) : [];
  const now = wordAt(field);
  if (asked?.word !== now?.word || asked?.start !== now?.start) return; // something was typed meanwhile
  if (now) show(field, now.start, choices);
  else close();
});

document.addEventListener(
  "keydown",
  (event) => {
    if (!open || event.target !== open.field || event.isComposing) return;
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
