document.querySelector("[data-print]")?.addEventListener("click", () => window.print());

// A worker that keeps a page for when the server is away; only who is signed in gets it, so that the first page asks for
// no more than it shows.
if (document.body.classList.contains("signed-in")) {
  // Without it the page is as good.
  window.addEventListener("load", () => navigator.serviceWorker?.register("/sw.js").catch(() => {}));
}
