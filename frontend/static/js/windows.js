// The windows of a browser hear the server by one stream, since it has six connections and no more. Who holds the lock
// leads: it has the stream, for what all windows show, and passes on what it hears. Only a window that is looked at takes
// part. Where there are no locks (they need TLS or this machine), each has a stream of its own.

const { group } = document.body.dataset; // of one session: nobody else hears what is said in it
const channel = group && new BroadcastChannel(group);
const { locks } = navigator;
const STATE = ["open", "look", "page", "month", "reply", "done", "out", "error"];
const GATHER_MS = 30; // in which the others say what they show
const RETRY_MS = 3000;

let hear; // is told of each event: (name, data, id)
let leave = null; // gives up the lead, or the wait for it
let shown = null; // what all windows show, while this one leads
let stream;
let timer = null;
let told = 0; // 1: the leader knows what this window shows; 2: so what it passes on is not older than this page
const known = new WeakSet(); // replies that were named in `own`

const replies = () => [...document.querySelectorAll("[data-streams]")];

/** Tells the other windows. */
export const tell = (...message) => channel.postMessage(message);
const pass = (...message) => locks && tell(...message);

function own() {
  for (const reply of replies()) known.add(reply);
  return [
    ...[...document.querySelectorAll("[data-subscription]")].map(({ dataset }) => dataset.subscription),
    ...replies().map(({ id, dataset }) => `reply=${id.slice(2)}-${dataset.streams}`),
  ];
}

function gather() {
  shown = new Set(own());
  pass("who");
  openSoon();
}

const openSoon = (delay = GATHER_MS) => (timer ??= setTimeout(open, delay));

function open() {
  timer = null;
  stream?.close();
  const opened = new EventSource(`/session/events?${[`group=${group}`, ...shown].join("&")}`);
  stream = opened;
  for (const name of [...STATE, "ended"]) {
    opened.addEventListener(name, ({ data, lastEventId }) => {
      if (stream !== opened) return;
      pass(name, data, lastEventId);
      hear(name, data, lastEventId);
      if (opened.readyState === EventSource.CLOSED && shown) openSoon(RETRY_MS);
    });
  }
}

/** What this window shows has changed. */
function change() {
  if (shown) gather();
  else if (leave) pass("changed");
}

export function rest() {
  leave?.();
  clearTimeout(timer);
  stream?.close();
  leave = timer = shown = stream = null;
  told = 0;
}

function takePart() {
  if (document.visibilityState === "hidden") return rest();
  if (leave) return;
  const waiting = new AbortController();
  leave = () => waiting.abort();
  const lead = () =>
    new Promise((resolve) => {
      if (waiting.signal.aborted) return resolve();
      leave = resolve;
      gather();
    });
  if (locks) locks.request(group, { signal: waiting.signal }, lead).catch(() => {});
  else lead();
  change();
}

function listen({ data: [name, ...more] }) {
  if (name === "who" && leave) {
    told ||= 1;
    tell("shows", own());
  } else if (name === "changed" && shown) gather();
  else if (name === "shows" && shown) {
    for (const each of more[0]) shown.add(each);
    openSoon();
  } else if (!STATE.includes(name)) hear(name, ...more);
  else if (told && leave) {
    if (name === "open") told = 2;
    if (told === 2) hear(name, ...more);
  }
}

/** Begins to listen; `listener` is told of what the server and the other windows say. */
export function start(listener) {
  hear = listener;
  channel.addEventListener("message", listen);
  document.addEventListener("visibilitychange", takePart);
  document.addEventListener("htmx:after:process", () => replies().every((each) => known.has(each)) || change());
  window.addEventListener("pagehide", rest);
  window.addEventListener("pageshow", takePart);
}
