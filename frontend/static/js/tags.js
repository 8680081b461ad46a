// What stands beside a trace that is pointed at, focused or touched: how often, when last, and the way there. Without a
// script the trace is a link to its page, where all of it stands too.

const WAIT = 350; // ms over a trace before it opens, and away from it before it closes
let open = null; // {chip, brief}
let timer;
let touched = false; // whether the pointer that pressed last was a finger

const chipOf = (target) => target.closest?.("a[data-tag]");
const isWithin = (target) => Boolean(open) && (open.chip.contains(target) || open.brief.contains(target));

function close() {
  clearTimeout(timer);
  if (!open) return;
  const { chip, brief } = open;
  open = null;
  chip.ariaExpanded = null;
  brief.remove();
}

/** Under its chip, or over it where there is more room, and never over the edge. */
function place() {
  const { chip, brief } = open;
  const at = chip.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = brief;
  const below = innerHeight - at.bottom;
  const top = below >= height + 12 || below >= at.top ? at.bottom + 6 : at.top - height - 6;
  brief.style.top = `${Math.max(8, top)}px`;
  brief.style.left = `${Math.max(16, Math.min(at.left, document.documentElement.clientWidth - width - 16))}px`;
}

function show(chip) {
  if (open?.chip === chip) return;
  close();
  const entry = chip.closest("[id^='e-']")?.id.slice(2);
  const brief = document.createElement("div");
  Object.assign(brief, { className: "tag-popover", popover: "manual", role: "group", ariaLabel: chip.textContent });
  // What people wrote is fenced from HTMX, so there it stands after it; Tab leads into it either way.
  (chip.closest("[hx-ignore]") ?? chip).after(brief);
  open = { chip, brief };
  htmx.ajax("GET", `${chip.getAttribute("href")}/brief${entry ? `?e=${entry}` : ""}`, {
    source: brief,
    target: brief,
    swap: "innerHTML",
  });
}

document.addEventListener("htmx:after:swap", ({ detail: { ctx } }) => {
  if (!open || ctx.target !== open.brief) return;
  open.brief.showPopover();
  open.chip.ariaExpanded = true;
  place();
});
document.addEventListener("htmx:before:swap", ({ detail: { ctx } }) => {
  if (open && ctx.target !== open.brief && ctx.target?.contains?.(open.chip)) close();
});

document.addEventListener("pointerover", ({ target, pointerType }) => {
  if (pointerType === "touch") return;
  const chip = chipOf(target);
  clearTimeout(timer);
  if (chip) timer = setTimeout(show, WAIT, chip);
  else if (open && !isWithin(target) && !isWithin(document.activeElement)) timer = setTimeout(close, WAIT);
});
document.addEventListener("pointerdown", ({ target, pointerType }) => {
  touched = pointerType === "touch";
  if (open && !isWithin(target)) close();
});
// The first touch opens, the second follows the link.
document.addEventListener("click", (event) => {
  const chip = chipOf(event.target);
  if (!chip || !touched || open?.chip === chip) return;
  event.preventDefault();
  show(chip);
});
document.addEventListener("focusin", ({ target }) => {
  const chip = chipOf(target);
  if (chip && !touched && chip.matches(":focus-visible")) show(chip);
  else if (open && !isWithin(target)) close();
});
document.addEventListener(
  "keydown",
  (event) => {
    if (event.key !== "Escape" || !open) return;
    const { chip, brief } = open;
    event.preventDefault();
    event.stopPropagation();
    if (brief.contains(document.activeElement)) chip.focus();
    close();
  },
  true,
);
document.addEventListener("scroll", ({ target }) => open && !open.brief.contains(target) && close(), true);
