// The service worker keeps the page that says that Llamora is not answering, and what it is set with; no page of the
// journal, since only what is on a list is put into the cache. `SHELL`, the addresses on it, and `NAME`, which changes
// when one of them does, are put before this by the server (src/llamora/app/assets.py).

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(SHELL)));
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
  if (request.mode === "navigate") event.respondWith(fetch(request).catch(() => caches.match("/offline")));
  else if (SHELL.includes(path)) event.respondWith(fetch(request).catch(() => caches.match(path)));
});
