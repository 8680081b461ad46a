// The page works without any of this: forms post and links lead. What follows only saves the reload.
import "./vendor/htmx.js";
import "./vendor/hx-sse.js";
import "./requests.js";
import "./replies.js";
import "./complete.js";
import "./markup.js";
import "./paste.js";
import "./desk.js";
import "./tasks.js";
import "./keys.js";
import "./results.js";
import "./writing.js";
import "./drafts.js";
import "./days.js";
import "./session.js";
import "./settings.js";
import "./components/reveal.js";
