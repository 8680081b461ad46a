// What is written, changed or deleted in another window or on another device comes to this page too: without a move of
// what is read, and without a touch on what is being typed. The server says what stands on the page (session.js hears
// it); what differs is asked for and put in its place. The traces of an entry come and go without the rest of it.

const entries = document.querySelector("[data-day]");
const day = entries?.dataset.day;

let listing = null; // the newest that was heard and not yet acted upon: [id, revision, root, traces] in the page's order
let writing = 0; // requests under way whose answer changes the page by itself
let asking = false;
let known = new Set(); // what was listed before: what never was may have been written here since a listing was made

const on = (name, listener) => document.addEventListener(name, (event) => listener(event.detail.ctx));
const shown = (id) => document.getElementById(`e-${id}`);
const tagsOf = (id, within = document) => within.querySelector(`#tags-${id}`);
const threadOf = (element) => element.querySelector(":scope > .body > .thread");
const actionsOf = (element) => element.querySelector(":is(:scope, :scope > .body) > .actions");
const fieldsOf = (element) => [...element.querySelectorAll("textarea")];
const isTouched = (field) => field === document.activeElement || field.value !== field.defaultValue;
const isOwn = (element) => (field) => field.closest("[id^='e-']") === element;

for (const { id } of entries?.querySelectorAll("article[id^='e-']") ?? []) known.add(id.slice(2));

export function applyListing(heard) {
  listing = heard;
  step();
}

/** The focus goes on with what stands beside it. */
function takeOut(element) {
  const held = element.contains(document.activeElement);
  const beside =
    element.nextElementSibling ?? element.previousElementSibling ?? element.parentElement.closest("article");
  element.remove();
  const next = beside?.querySelector("[data-focus-target]") ?? document.getElementById("write");
  if (held) next?.focus({ preventScroll: true });
}

function differs([id, revision]) {
  const element = shown(id);
  if (!element) return true;
  if (!revision || element.querySelector(":scope > .reply-body > [data-streams]")) return false; // it tells by itself
  if (fieldsOf(element).filter(isOwn(element)).some(isTouched)) return false; // keeping it will show both
  return !(element.dataset.revision >= revision);
}

const hasOtherTags = ([id, , , mark]) => (tagsOf(id)?.dataset.fingerprint ?? mark) !== mark;

function step() {
  if (!listing || writing || asking) return;
  const heard = listing;
  listing = null;
  const ids = new Set(heard.map(([id]) => id));
  for (const id of known) {
    const element = !ids.has(id) && shown(id);
    if (!element?.matches?.("article")) continue;
    if (fieldsOf(element).some(isTouched)) ids.add(id);
    else takeOut(element);
  }
  known = ids;
  const wanted = heard.filter((item) => differs(item) || hasOtherTags(item)).map(([id]) => `e=${id}`);
  if (!wanted.length) return;
  asking = true;
  htmx.ajax("GET", `/d/${day}/entries?${wanted.join("&")}`, { source: entries, swap: "none", heard });
}

on("htmx:before:request", (ctx) => {
  ctx.writes = changesPage(ctx); // its target may be a mere name by the time the request has failed
  if (ctx.writes) writing += 1;
});
on("htmx:after:request", (ctx) => {
  if (ctx.heard && ctx.response.status === 200) place(ctx.heard, ctx.text);
});
on("htmx:finally:request", (ctx) => {
  if (ctx.heard) asking = false;
  else if (ctx.writes) writing -= 1;
  setTimeout(step); // after what listens to the same event has done its part
});

const changesPage = (ctx) =>
  Boolean(entries) &&
  !ctx.heard &&
  ctx.request?.method === "POST" &&
  ctx.target instanceof Node &&
  entries.contains(ctx.target);

function place(heard, html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  const last = new Map(); // container -> the message of it that was passed last
  for (const item of heard) {
    const [id, , root] = item;
    const container = id === root ? entries : document.getElementById(`thread-${root}`);
    const made = fresh.content.querySelector(`#e-${id}`);
    if (made && container && differs(item)) put(made, shown(id), container, last.get(container));
    else if (made && hasOtherTags(item)) replaceTags(tagsOf(id), tagsOf(id, made));
    if (shown(id)) last.set(container, shown(id));
  }
}

/** Only their list: what was just taken off or is suggested stays beside it. */
function replaceTags(old, made) {
  const list = ":scope > ul:not(.suggested-tags)";
  const held = old.querySelector(`${list} :focus`)?.href;
  old.querySelector(list)?.remove();
  old.prepend(...made.querySelectorAll(list));
  old.dataset.fingerprint = made.dataset.fingerprint;
  if (held) [...old.querySelectorAll("a")].find((chip) => chip.href === held)?.focus({ preventScroll: true });
}

function put(made, old, container, before) {
  const held = old?.contains(document.activeElement) && !threadOf(old)?.contains(document.activeElement);
  // Somebody may be answering in the thread, or naming a trace under the text: what they write in stays where it is, and
  // only what stands around it is new.
  const names = old && actionsOf(made) ? [...old.querySelectorAll(".tag-form input[name=name]")] : [];
  const isNaming = names.filter(isOwn(old)).some(isTouched);
  const stays = [isNaming && actionsOf(old), old && threadOf(made) && threadOf(old)].filter(Boolean);
  if (stays.length) {
    const body = made.querySelector(":scope > .body");
    for (const part of [...old.children, ...stays[0].parentNode.children]) {
      if (!stays.some((each) => part.contains(each))) part.remove();
    }
    if (isNaming) actionsOf(made).remove();
    threadOf(made)?.remove();
    stays[0].before(...(body?.children ?? []));
    body?.remove();
    old.prepend(...made.children);
    old.className = made.className;
    old.dataset.revision = made.dataset.revision;
    made = old;
  } else if (old) {
    old.after(made);
    old.remove();
  } else if (before) before.after(made);
  else container.prepend(made);
  htmx.process(made);
  if (held && !made.contains(document.activeElement)) {
    made.querySelector("[data-focus-target]")?.focus({ preventScroll: true });
  }
}
