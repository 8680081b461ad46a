// A reply while it streams: read out by the sentence, and kept in view for whoever is reading along.

const told = new Map(); // reply id -> how many characters were read out

const room = () => document.querySelector(".composer-bar")?.offsetHeight ?? 0;

const { follows: AWAY } = document.body.dataset;

// A reply that was just asked for begins in sight, wherever its entry stands.
document.addEventListener("htmx:after:swap", ({ detail }) => {
  const newest = detail.ctx.target?.matches?.(".thread") ? detail.ctx.target.lastElementChild : null;
  if (newest?.querySelector("[data-streams]")) newest.scrollIntoView({ block: "nearest" });
});

/** Says at each reply that the server does not answer, or no longer says it. */
export function sayAway(isAway) {
  const sentence = isAway ? AWAY : "";
  for (const place of document.querySelectorAll(".stop [data-problem]")) {
    if (place.textContent !== sentence) place.textContent = sentence;
  }
}

let last = Promise.resolve(); // one after the other: a swap takes a moment

/** Puts in what came of a reply; `at` is its id and the length of its text. */
export const growReply = (partials, at) => {
  last = last.then(() => grow(partials, at)).catch(() => {});
};

async function grow(partials, at) {
  const [id, length] = at.split("-");
  const body = document.querySelector(`#r-${id}[data-streams]`);
  if (!body) return;
  const reply = document.getElementById(`e-${id}`);
  const isFollowed = reply.getBoundingClientRect().bottom < window.innerHeight - room() + 48;
  body.dataset.streams = length ?? "";
  await htmx.swap({ text: partials, sourceElement: body, swap: "none" });
  if (isFollowed) document.getElementById(`e-${id}`)?.scrollIntoView({ block: "nearest" });
  readOut(id, document.getElementById(`r-${id}`));
}

function readOut(id, body) {
  const prose = body?.querySelector(".prose");
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
