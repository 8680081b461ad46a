// Around the text one writes: focus mode, the number of its words when asked, and a keyboard that takes the screen.

/** All but the text goes, until Escape, until the text is kept, or until the focus goes elsewhere. */
export function setFocusMode(form, isAlone) {
  form.classList.toggle("focus-mode", isAlone);
  form.querySelector("[data-action=alone]")?.setAttribute("aria-pressed", String(isAlone));
  if (isAlone) form.querySelector("textarea").focus();
}

/** Leaves focus mode; whether there was anything to leave. */
export function leaveFocusMode() {
  const form = document.querySelector("form.focus-mode");
  if (form) setFocusMode(form, false);
  return Boolean(form);
}

function countWords(text, lang) {
  const words = [...new Intl.Segmenter(lang, { granularity: "word" }).segment(text)];
  return words.filter(({ isWordLike }) => isWordLike).length.toLocaleString(lang);
}

const does = {
  alone: (button) => setFocusMode(button.form, !button.form.classList.contains("focus-mode")),
  count(button) {
    const field = button.form.querySelector("textarea");
    const { selectionStart, selectionEnd, value } = field;
    const text = selectionStart === selectionEnd ? value : value.slice(selectionStart, selectionEnd);
    const place = button.form.querySelector("[data-count]");
    place.textContent = place.dataset.count.replace("%", countWords(text, document.documentElement.lang));
    field.focus({ preventScroll: true });
  },
};

document.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-action]");
  does[button?.dataset.action]?.(button);
});

document.addEventListener("input", ({ target }) => {
  const place = target.form?.querySelector("[data-count]");
  if (place) place.textContent = "";
});

document.addEventListener("focusout", ({ target, relatedTarget }) => {
  const form = target.closest("form.focus-mode");
  if (form && relatedTarget && !form.contains(relatedTarget)) setFocusMode(form, false);
});

document.addEventListener(
  "htmx:after:swap",
  ({ detail: { ctx } }) => ctx.sent && ctx.response?.raw.ok && leaveFocusMode(),
);

// Where a keyboard lies over the page instead of making it smaller (iOS), what is written stays above it.
const seen = window.visualViewport;
let room = 0;
function makeRoom() {
  const covered = seen.scale > 1.01 ? 0 : Math.max(0, Math.round(innerHeight - seen.height - seen.offsetTop));
  if (covered !== room) document.documentElement.style.setProperty("--keyboard", `${covered}px`); // styles all anew
  room = covered;
}
seen?.addEventListener("resize", makeRoom);
seen?.addEventListener("scroll", makeRoom);
