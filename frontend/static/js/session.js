// A page of somebody who is no longer signed in must not go on showing what it shows.

import { hasUnsavedText } from "./drafts.js";
import { applyListing } from "./live_updates.js";
import { applyPreferences } from "./preferences.js";
import { growReply, sayAway } from "./replies.js";
import { rest, start, tell } from "./windows.js";

const isIn = document.body.classList.contains("signed-in");
const page = document.querySelector("[data-subscription]"); // what is told of this page

// Without a sign of the writer, in any tab, the server locks after this time; it hears of signs in steps.
const idle = Number(document.body.dataset.idle) * 1000;
const step = idle / 15;
let used = Date.now();
let told = used;

function clear() {
  rest();
  document.body.replaceChildren();
  document.title = "Llamora";
}

function empty() {
  clear();
  location.replace("/sign-in");
}

const heard = {
  open: () => sayAway(false),
  error: () => sayAway(true),
  reply: growReply,
  done: growReply,
  page: (data, day) => page?.dataset.day === day && applyListing(JSON.parse(data)),
  month: (data, month) =>
    page?.dataset.subscription === `month=${month}` &&
    data !== page.dataset.fingerprint &&
    page.dispatchEvent(new Event("changed")),
  look: (data) => applyPreferences(JSON.parse(data), true),
  ended: empty,
  // A session that ended while nobody listened, such as with the server. Then words that are nowhere but here are
  // worth more than an empty screen: they say themselves how to keep them.
  out: () => (hasUnsavedText() ? rest() : empty()),
  // What other windows say: somebody is here; somebody goes.
  here() {
    used = Date.now();
    told = used;
  },
  leaving() {
    clear();
    setTimeout(() => location.replace("/sign-in"), 1000); // until then the server has ended the session too
  },
};

function reportActivityOrClear() {
  // The page goes by itself where nobody tells it to: it is hidden, or the server is away.
  if (Date.now() - used > idle + 2 * step) return empty();
  if (used <= told) return;
  told = Date.now();
  tell("here");
  document.getElementById("keep-alive")?.dispatchEvent(new Event("keep-alive"));
}

if (isIn) {
  for (const sign of ["keydown", "pointerdown", "pointermove", "wheel", "scroll"]) {
    window.addEventListener(sign, () => (used = Date.now()), { capture: true, passive: true });
  }
  setInterval(reportActivityOrClear, step);
  document.addEventListener("submit", ({ target }) => {
    if (!/^\/(lock|sign-out)$/.test(new URL(target.action).pathname)) return;
    rest(); // this page is on its way already
    tell("leaving");
  });
  start((name, ...more) => heard[name]?.(...more));
}
