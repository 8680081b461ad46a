// A reply while it streams: read out by the sentence, and kept in view for whoever is reading along.

const told = new Map(); // reply id -> how many characters were read out
let following = false;

const idOf = (event) => event.detail.connection?.url.match(/^\/r\/([^/]+)\/events/)?.[1];
const room = () => document.querySelector(".composer-bar")?.offsetHeight ?? 0;

const { follows: AWAY } = document.body.dataset;

// A reply that was just asked for begins in sight, wherever its entry stands.
document.addEventListener("htmx:after:swap", ({ detail }) => {
  const newest = detail.ctx.target?.matches?.(".thread") ? detail.ctx.target.lastElementChild : null;
  if (newest?.querySelector("[data-streams]")) newest.scrollIntoView({ block: "nearest" });
});

function say(id, sentence) {
  const place = document.querySelector(`#e-${id} .stop [data-problem]`);
  if (place && place.textContent !== sentence) place.textContent = sentence;
}

document.addEventListener("htmx:sse:error", (event) => say(idOf(event), AWAY));

document.addEventListener("htmx:sse:before:message", (event) => {
  const reply = document.getElementById(`e-${idOf(event)}`);
  following = Boolean(reply) && reply.getBoundingClientRect().bottom < window.innerHeight - room() + 48;
});

document.addEventListener("htmx:sse:after:message", (event) => {
  const id = idOf(event);
  const body = document.getElementById(`r-${id}`);
  if (!body) return;
  say(id, "");
  if (following) document.getElementById(`e-${id}`)?.scrollIntoView({ block: "nearest" });
  readOut(id, body);
});

function readOut(id, body) {
  const prose = body.querySelector(".prose");
  if (!prose || prose.querySelector(".waiting")) return;
  const text = prose.textContent;
  const from = told.get(id) ?? 0;
  const isDone = !body.hasAttribute("data-streams");
  const ends = [...text.matchAll(/[.!?…]["”’)\]]*\s/g)];
  const to = isDone ? text.length : ends.length ? ends.at(-1).index + ends.at(-1)[0].length : 0;
  if (to <= from) return;
  told.set(id, to);
  const line = document.createElement("p");
  line.textContent = text.slice(from, to);
  const announcer = document.getElementById("announcer");
  announcer.append(line);
  while (announcer.childElementCount > 12) announcer.firstElementChild.remove();
}
