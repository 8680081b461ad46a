// A page of somebody who is no longer signed in must not go on showing what it shows.

import { hasUnsavedText } from "./drafts.js";
import { applyListing } from "./live_updates.js";
import { applyPreferences } from "./preferences.js";

const isIn = document.body.classList.contains("signed-in");
const tabs = new BroadcastChannel("llamora-session"); // says only that something ended, never what
const page = document.querySelector("[data-subscription]"); // what is told of this page
let watch;

// Without a sign of the writer, in any tab, the server locks after this time; it hears of signs in steps.
const idle = Number(document.body.dataset.idle) * 1000;
const step = idle / 15;
let used = Date.now();
let told = used;

function clear() {
  watch?.close();
  document.body.replaceChildren();
  document.title = "Llamora";
}

function empty() {
  clear();
  location.replace("/sign-in");
}

/** Only a page that is looked at listens: a browser has few connections for one server. */
function listen() {
  watch?.close();
  if (document.visibilityState === "hidden") return;
  watch = new EventSource(`/session/events?${page?.dataset.subscription ?? ""}`);
  watch.addEventListener("page", ({ data }) => applyListing(JSON.parse(data)));
  watch.addEventListener(
    "month",
    ({ data }) => data !== page.dataset.fingerprint && page.dispatchEvent(new Event("changed")),
  );
  watch.addEventListener("look", ({ data }) => applyPreferences(JSON.parse(data), true));
  watch.addEventListener("ended", empty);
  // A session that ended while nobody listened, such as with the server. Then words that are nowhere but here are
  // worth more than an empty screen: they say themselves how to keep them.
  watch.addEventListener("out", () => (hasUnsavedText() ? watch.close() : empty()));
}

function reportActivityOrClear() {
  // The page goes by itself where nobody tells it to: it is hidden, or the server is away.
  if (Date.now() - used > idle + 2 * step) return empty();
  if (used <= told) return;
  told = Date.now();
  tabs.postMessage("here");
  document.getElementById("keep-alive")?.dispatchEvent(new Event("keep-alive"));
}

if (isIn) {
  for (const sign of ["keydown", "pointerdown", "pointermove", "wheel", "scroll"]) {
    window.addEventListener(sign, () => (used = Date.now()), { capture: true, passive: true });
  }
  setInterval(reportActivityOrClear, step);
  tabs.addEventListener("message", ({ data }) => {
    if (data === "here") {
      used = Date.now();
      told = used; // it was told by the other tab
      return;
    }
    clear();
    setTimeout(() => location.replace("/sign-in"), 1000); // until then the server has ended the session too
  });
  document.addEventListener("submit", ({ target }) => {
    if (!/^\/(lock|sign-out)$/.test(new URL(target.action).pathname)) return;
    watch?.close(); // this page is on its way already
    tabs.postMessage("ended");
  });
  document.addEventListener("visibilitychange", listen);
  window.addEventListener("pagehide", () => watch?.close());
  window.addEventListener("pageshow", listen);
}
