// Drafts: HTMX posts what is being written to the server, which seals it. Known here is which words are safe there.

const safe = new WeakMap(); // field -> its text as the server last had it
let count = 0;

const on = (name, listener) => document.addEventListener(name, (event) => listener(event.detail.ctx, event));
const formTokenOf = (field) => field.form?.elements.form_token?.value;
const textIn = (field) => safe.get(field) ?? field.defaultValue;
const isUnsafe = (field) => field.value !== textIn(field);
const drafted = (ctx) => (ctx.sourceElement?.matches?.("[data-drafts]") ? ctx.sourceElement : null);

/** What was sent has been kept for good, and what is left in the field is new. */
export function markSaved(field) {
  safe.set(field, "");
  delete field.form.dataset.draft;
}

on("htmx:config:request", (ctx, event) => {
  if (ctx.sourceElement?.matches?.("[data-cancel]")) {
    // Nothing that is still on its way may come after the word to let it go.
    ctx.request.form.dataset.left = "";
    ctx.request.form.querySelector("[data-drafts]")?.dispatchEvent(new Event("htmx:abort"));
  }
  const field = drafted(ctx);
  if (!field) return;
  if (!isUnsafe(field) || "left" in field.form.dataset) {
    event.preventDefault();
    return;
  }
  count += 1;
  ctx.request.body.set("count", count);
  ctx.draft = { field, text: field.value, formToken: formTokenOf(field) };
  // A page that goes away may still send this much (https://fetch.spec.whatwg.org/#http-network-or-cache-fetch).
  const size = new URLSearchParams(ctx.request.body).toString().length;
  if (ctx.sourceEvent.type === "leaving" && size < 60_000) ctx.request.keepalive = true;
});

on("htmx:after:request", (ctx) => {
  const { draft } = ctx;
  if (!draft || ctx.response.status !== 204 || draft.formToken !== formTokenOf(draft.field)) return;
  safe.set(draft.field, draft.text);
  if (draft.text.trim()) draft.field.form.dataset.draft = "";
  else delete draft.field.form.dataset.draft;
});

on("htmx:finally:request", (ctx) => {
  if (ctx.request?.form) delete ctx.request.form.dataset.left;
});

/** Sends what is not safe yet without waiting for a pause. */
function saveNow() {
  for (const field of document.querySelectorAll("[data-drafts]")) {
    if (isUnsafe(field)) field.dispatchEvent(new Event("leaving"));
  }
}
document.addEventListener("focusout", (event) => event.target.matches?.("[data-drafts]") && saveNow());
document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && saveNow());
window.addEventListener("pagehide", saveNow);

// Words that are nowhere but here are not lost to a closed tab without a question; they are on their way meanwhile.
export function hasUnsavedText() {
  const fields = [...document.querySelectorAll("textarea:not([readonly])")];
  return fields.some((field) => field.value.trim() && isUnsafe(field));
}
window.addEventListener("beforeunload", (event) => {
  if (!hasUnsavedText()) return;
  saveNow();
  event.preventDefault();
});
