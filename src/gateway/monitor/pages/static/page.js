// Fills the page with what the monitor says, and takes in news while it is looked at.

import { Charts } from "./charts.js";
import { render, cell } from "./render.js";

const REFRESH_MS = 1000 * Number(document.querySelector("meta[name=refresh-s]").content);
const dark = matchMedia("(prefers-color-scheme: dark)");
const at = (id) => document.getElementById(id);
const charts = new Charts();
let theme = "";
let etag = "";
let timer = 0;
let reading = null;

function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  sessionStorage.setItem("token", given);
  history.replaceState(null, "", location.pathname + location.search);
}

async function read(signal) {
  const query = new URLSearchParams(location.search);
  query.set("theme", theme);
  const token = sessionStorage.getItem("token");
  const headers = etag ? { "If-None-Match": etag } : {};
  if (token) headers.Authorization = `Bearer ${token}`;
  // A 304 is the page's own to see: the browser's cache would turn it into the page it has.
  return fetch(`/ui/data${location.pathname}?${query}`, { headers, cache: "no-store", signal });
}

// Charts of other colours must not take in new data. A change is not always told where `matches` was read since.
function followColours() {
  const now = dark.matches ? "dark" : "light";
  if (now === theme) return;
  theme = now;
  etag = "";
  charts.forget();
}

async function refresh() {
  clearTimeout(timer);
  followColours();
  reading?.abort();
  const mine = (reading = new AbortController());
  try {
    const response = await read(mine.signal);
    const page = response.status === 304 ? null : await response.json();
    // What has come whole is handed over in spite of its being given up.
    if (mine.signal.aborted) return;
    if (response.status === 200) {
      show(page);
      etag = response.headers.get("ETag") ?? "";
    } else if (page) {
      throw new Error(page.error);
    }
    at("stale").hidden = true;
    live("live", "good");
  } catch (error) {
    if (mine.signal.aborted) return;
    at("stale").textContent = error instanceof TypeError ? "The monitor does not answer." : error.message;
    at("stale").hidden = false;
    live("not live", "bad");
  }
  if (!document.hidden) timer = setTimeout(refresh, REFRESH_MS);
}

function live(text, tone) {
  const stream = at("stream");
  if (stream.textContent === text) return;
  stream.textContent = text;
  stream.className = `badge ${tone}`;
}

function show(page) {
  const before = at("badges").textContent;
  document.title = `${page.title} - Monitor`;
  at("title").textContent = page.title;
  at("badges").replaceChildren(...page.badges.map(cell));
  links(at("trail"), page.trail);
  links(at("tabs"), page.trail.length ? page.tabs : [], page.here);
  for (const link of document.querySelectorAll("header nav a")) {
    link.toggleAttribute("aria-current", link.getAttribute("href") === page.here);
  }
  render(at("blocks"), page.blocks, charts);
  const now = at("badges").textContent;
  if (before && before !== now) at("said").textContent = `${page.title}: ${now}`;
}

function links(nav, items, here) {
  nav.hidden = items.length === 0;
  nav.replaceChildren(...items.map((item) => {
    const link = cell(item);
    if (item.href === here) link.setAttribute("aria-current", "page");
    return link;
  }));
}

takeToken();
dark.addEventListener("change", refresh);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
refresh();
