// Every fleet, with its endpoints.

import { el } from "./elements.js";
import { badge, bar, time } from "./parts.js";
import { count, duration, now } from "./words.js";

const TONES = { healthy: "good", ejected: "bad", open: "wait", connecting: "busy" };
// More models than this are folded away.
const SHOWN = 6;

export function fleetsView(fleets) {
  return [
    el("h1", {}, "Fleets"),
    fleets.length ? null : el("p", { class: "dim" }, "There are no fleets: every model runs in the gateway's own process."),
    fleets.map(fleet),
  ];
}

function fleet(row, place) {
  const endpoints = [...row.endpoints].sort((a, b) => a.address.localeCompare(b.address, "en", { numeric: true }));
  const inUse = endpoints.filter((one) => one.state === "healthy").length;
  const inflight = endpoints.reduce((sum, one) => sum + one.inflight, 0);
  const tone = inUse === endpoints.length && inUse > 0 ? "good" : inUse > 0 ? "wait" : "bad";
  const id = `fleet-${place}`;
  return el(
    "section",
    { "aria-labelledby": id, "data-key": row.fleet },
    el("h2", { id }, row.fleet),
    el(
      "div",
      { class: "line" },
      badge(`${inUse} of ${endpoints.length} in use`, tone),
      el("span", { class: "dim" }, `${count(inflight)} in flight, room for ${count(row.capacity)}`),
    ),
    el("p", { class: "dim" }, served(row.serves)),
    endpoints.length
      ? el("ul", { class: "cards wide" }, endpoints.map(endpoint))
      : el("p", { class: "notice" }, "It has no endpoints, as far as is known."),
  );
}

function served(serves) {
  const names = Object.entries(serves).map(([name, there]) => (name === there ? name : `${name} (${there} there)`));
  return names.length ? `Serves ${names.join(", ")}.` : "Serves no model.";
}

function endpoint(row) {
  const again = row.until != null && row.until > now() ? `, for ${duration(row.until - now())} more` : "";
  const isOut = row.state === "ejected";
  const often = `${row.ejections === 1 ? "once" : `${count(row.ejections)} times`} so far`;
  return el(
    "li",
    { class: "card", "data-key": row.address },
    el("div", { class: "line" }, el("h3", {}, row.address), badge(row.state === "open" ? "circuit open" : row.state, TONES[row.state])),
    row.reason && el("p", { class: isOut ? "reason bad" : "" }, row.reason),
    el("p", { class: "dim" }, isOut ? "ejected " : "changed ", time(row.since), again, row.ejections ? ` · ${isOut ? "" : "ejected "}${often}` : ""),
    bar(row.limit ? Math.min(1, row.inflight / row.limit) : 0, `${count(row.inflight)} of ${count(row.limit)} in flight`),
    models(row.models),
  );
}

function models(known) {
  const names = Object.keys(known);
  if (!names.length) return el("p", { class: "dim" }, "It has no model ready, as far as is known.");
  const list = el(
    "ul",
    { class: "models" },
    names.map((name) => el("li", {}, name, " ", el("span", { class: "dim" }, versions(known[name])))),
  );
  return names.length > SHOWN ? el("details", {}, el("summary", {}, `${names.length} models ready`), list) : list;
}

function versions(numbers) {
  return `${numbers.length === 1 ? "version" : "versions"} ${numbers.join(", ")}`;
}
