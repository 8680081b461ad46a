// The service worker keeps the shell, and nothing else: the page that says that Llamora is not answering, and the style,
// faces and mark that it is set with. No page of the journal ever gets in here, since nothing is put into the cache but
// what is on the list. `SHELL`, its addresses, and `NAME`, which changes when one of them does, are put before this by
// the server (src/llamora/app/assets.py).

const OFFLINE = "/offline";

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(SHELL)));
  self.skipWaiting();
});

self.addEventListener("activate", (event) => {
  const drop = (names) => Promise.all(names.filter((name) => name !== NAME).map((name) => caches.delete(name)));
  event.waitUntil(caches.keys().then(drop));
  self.clients.claim();
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  // What is posted is left to the browser, which asks whether to send it again.
  if (request.method !== "GET") return;
  const path = new URL(request.url).pathname;
  if (request.mode === "navigate") event.respondWith(fetch(request).catch(() => caches.match(OFFLINE)));
  else if (SHELL.includes(path)) event.respondWith(fetch(request).catch(() => caches.match(path)));
});
