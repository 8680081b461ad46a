// Around every request that htmx makes: the CSRF token, where a refusal is said, and where the focus goes.

import { markSaved } from "./drafts.js";

// Sentences come with the page, in its language.
const { out: OUT, away: AWAY, failed: FAILED } = document.body.dataset;

const on = (name, listener) => document.addEventListener(name, (event) => listener(event.detail.ctx, event));

function csrfToken() {
  const start = `${document.body.dataset.csrf}=`;
  const cookie = document.cookie.split("; ").find((part) => part.startsWith(start));
  return cookie ? decodeURIComponent(cookie.slice(start.length)) : "";
}

/** Says a sentence next to what was pressed; without a place for it, to the screen reader alone. */
function say(ctx, sentence) {
  const near = ctx.sourceElement?.closest?.("form, .actions");
  const place = near?.querySelector(near.matches("form") ? "[data-problem]" : ":scope > [data-problem]");
  if (place?.textContent === sentence) return; // to say it once more would read it out once more
  if (place) place.textContent = sentence;
  else if (sentence) document.getElementById("announcer")?.append(sentence);
}

/** A whole page came where a part of one belongs: the sentence it holds. */
function sentenceIn(ctx) {
  const { raw, status } = ctx.response;
  if (status === 401 || new URL(raw.url).pathname === "/sign-in") return OUT;
  const page = new DOMParser().parseFromString(ctx.text, "text/html");
  return page.getElementById("what-happened")?.textContent.trim() || FAILED;
}

// A long day has a thousand words to press: htmx learns of an entry's when one is pressed, in the event itself.
document.addEventListener(
  "click",
  ({ target }) => {
    const row = target.closest(".actions[hx-ignore]");
    row?.removeAttribute("hx-ignore");
    if (row) htmx.process(row);
  },
  true,
);

on("htmx:config:request", (ctx) => {
  ctx.request.headers["X-CSRF-Token"] = csrfToken();
  const field = ctx.sourceElement.matches("form") && ctx.sourceElement.querySelector("[data-clear-on-send]");
  if (field) ctx.sent = { field, text: field.value };
});

on("htmx:before:request", (ctx) => {
  if (ctx.request.form && !ctx.draft) say(ctx, "");
});

on("htmx:error", (ctx) => {
  if (ctx?.request) say(ctx, AWAY);
});

// Results of a search have an address, so that the way back leads to them. It is replaced only, and htmx's own history
// is off: every step back is a page of the server.
on("htmx:after:swap", (ctx) => {
  if (ctx.hx?.replaceurl) history.replaceState(null, "", ctx.hx.replaceurl);
});

/** Scrolls somewhere on a long day, and again while what comes near is laid out: its height was a guess (day.css). */
export function hold(scroll, frames = 8) {
  scroll();
  if (frames) requestAnimationFrame(() => hold(scroll, frames - 1));
}

/** The end of what was opened, or came into what is open, does not stay hidden under the composer. */
export function revealEnd(details) {
  if (details) hold(() => details.lastElementChild.scrollIntoView({ block: "nearest" }));
}

let held = "";

on("htmx:before:swap", (ctx, event) => {
  const isPart = /^\s*</.test(ctx.text) && !/^\s*<(!doctype|html)/i.test(ctx.text);
  if (!isPart && (ctx.text || ctx.response?.status >= 400)) {
    event.preventDefault();
    say(ctx, sentenceIn(ctx));
    return;
  }
  held = document.activeElement?.closest("[id^='e-']")?.id ?? "";
});

on("htmx:after:swap", (ctx) => {
  const { sent } = ctx;
  if (sent && ctx.response?.raw.ok) {
    // Only what was sent goes: a word typed meanwhile stays.
    const { field, text } = sent;
    field.value = field.value.startsWith(text) ? field.value.slice(text.length) : field.value;
    markSaved(field);
    field.dispatchEvent(new Event("input", { bubbles: true }));
    const details = field.closest("details");
    if (details) {
      details.open = false;
      details.querySelector("summary").focus({ preventScroll: true });
    }
    const made = ctx.target?.lastElementChild;
    if (made) hold(() => made.scrollIntoView({ block: "nearest" }));
  }
  // What had the focus is gone with the old part: its successor takes it.
  if (held && document.activeElement === document.body) {
    document.getElementById(held)?.querySelector("[data-focus-target]")?.focus({ preventScroll: true });
  }
  if (ctx.sourceElement.matches(".text-button, .more, .tag-form")) revealEnd(document.activeElement.closest(".more"));
});
