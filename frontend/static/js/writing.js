// Fields that people write in.

import { revealEnd } from "./requests.js";

// Older browsers do not let a field grow with its text by CSS alone.
if (!CSS.supports("field-sizing", "content")) {
  const grow = () => {
    for (const field of document.querySelectorAll("[data-autogrow]")) {
      field.style.height = "auto";
      field.style.height = `${field.scrollHeight}px`;
    }
  };
  for (const name of ["input", "toggle", "htmx:after:swap"]) document.addEventListener(name, grow, true);
  grow();
}

// Today opens with the pen in hand, but not with a keyboard over half the screen, nor over what was jumped to.
// The attribute `autofocus` would scroll a long day to its end.
if (!location.hash && matchMedia("(pointer: fine)").matches) {
  document.querySelector("[data-autofocus]")?.focus({ preventScroll: true });
}

document.addEventListener(
  "toggle",
  ({ target }) => {
    if (!target.matches("details[open]")) return;
    const field = target.querySelector("textarea, .tag-form [name=name]");
    if (field && !field.defaultValue) field.focus(); // with a draft in it, it stood open from the beginning
    if (target.contains(document.activeElement)) revealEnd(target);
  },
  true,
);

for (const field of document.querySelectorAll("[data-zone]")) {
  field.value = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
}
