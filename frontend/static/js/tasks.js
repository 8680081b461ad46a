// Boxes that are ticked in what one wrote. HTMX posts the form and morphs it, so the box keeps the focus.

const on = (name, listener) =>
  document.addEventListener(name, ({ detail: { ctx } }) => {
    if (ctx.sourceElement?.matches?.("form.tasks")) listener(ctx, ctx.sourceElement);
  });

// One that had to wait for another says how things are when its turn comes, not when it was asked for.
on("htmx:before:request", (ctx, form) => {
  ctx.request.body = new URLSearchParams(new FormData(form));
});

on("htmx:after:swap", (ctx, form) => {
  form.closest("article").dataset.revision = form.elements.revision.value;
  if (ctx.response.status !== 409) return;
  for (const box of form.querySelectorAll("[name=box]")) box.checked = box.defaultChecked; // as it stands now
});
