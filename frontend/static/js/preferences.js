// Settings: what is chosen is seen at once, and each is posted by itself, since the others may have been changed in
// another window meanwhile.

const root = document.documentElement;
let settled = 0; // until then the server may tell what was before what was just chosen here

/** How pages look and what keys do, as the server tells it: attributes of the document. */
export function applyPreferences(look, isHeard) {
  if (isHeard && Date.now() < settled) return;
  // Only what differs: each of them styles the whole page anew.
  for (const [name, value] of Object.entries(look)) if (root.dataset[name] !== value) root.dataset[name] = value;
  const meta = document.querySelector("meta[name='color-scheme']");
  const scheme = /^(light|dark)$/.test(look.theme) ? look.theme : "light dark";
  if (meta.content !== scheme) meta.content = scheme;
}

const ATTRIBUTES = { theme: "theme", text_size: "size", enter: "enter", letters: "letters" };

document.addEventListener("change", ({ target }) => {
  const name = target.closest("[data-settings]") && ATTRIBUTES[target.name];
  if (!name) return;
  settled = Date.now() + 2000;
  applyPreferences({ ...root.dataset, [name]: target.value });
});

document.addEventListener("htmx:config:request", ({ detail: { ctx } }) => {
  if (!ctx.sourceElement.matches("[data-settings]") || !ctx.sourceEvent?.target.name) return;
  const changed = new Set([ctx.sourceEvent.target.name, "csrf", "section"]);
  for (const name of [...ctx.request.body.keys()]) if (!changed.has(name)) ctx.request.body.delete(name);
});
