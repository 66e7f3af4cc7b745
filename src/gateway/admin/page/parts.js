// Pieces that the views share.

import { el, svg } from "./elements.js";
import { ago, interval, moment, percent, phaseName, phaseTone, share } from "./words.js";

export function badge(text, tone = "") {
  return el("span", { class: `badge ${tone}` }, text);
}

export function phaseBadges(row) {
  return el(
    "span",
    { class: "badges" },
    badge(phaseName(row.phase), phaseTone(row.phase)),
    row.advancing && badge("advancing", "busy"),
    row.paused && badge("paused", "wait"),
    row.frozen && badge("frozen", "wait"),
  );
}

// A time that is said relative to now; `tick` brings it up to date.
export function time(wallS) {
  const attributes = { "data-at": wallS, datetime: new Date(wallS * 1000).toISOString(), title: moment(wallS) };
  return el("time", attributes, ago(wallS));
}

export function tick() {
  for (const element of document.querySelectorAll("time[data-at]")) {
    const text = ago(Number(element.dataset.at));
    if (element.textContent !== text) element.textContent = text;
  }
}

// The canary's share of the keys; once it is promoted there is no other.
export function canaryBar(row) {
  return row.phase === "promoted" ? null : weightBar(row.weight_ppm, "canary");
}

export function weightBar(ppm, label) {
  return bar(ppm / 1e6, `${label} ${share(ppm)}`);
}

// A part of a whole, drawn and said.
export function bar(fraction, text) {
  return el(
    "div",
    { class: "weight" },
    svg(
      "svg",
      { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "track", width: 100, height: 4 }),
      svg("rect", { class: "fill", width: 100 * fraction, height: 4 }),
    ),
    el("span", {}, text),
  );
}

// A rate with its 95 % interval, drawn on a scale that ends at `most`.
export function rate(events, units, most) {
  const bounds = interval(events, units);
  if (!bounds) return el("span", { class: "dim" }, "none yet");
  const [low, high] = bounds;
  const at = (value) => (100 * Math.min(value, most)) / (most || 1);
  return el(
    "div",
    { class: "rate" },
    el("strong", {}, percent(events / units)),
    svg(
      "svg",
      { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("line", { class: "track", x1: 0, x2: 100, y1: 4, y2: 4 }),
      svg("rect", { class: "range", x: at(low), y: 2, width: Math.max(1, at(high) - at(low)), height: 4 }),
      svg("rect", { class: "point", x: Math.max(0, at(events / units) - 0.75), y: 0, width: 1.5, height: 8 }),
    ),
    el("small", { class: "dim" }, `${percent(low)} to ${percent(high)}`),
  );
}

// The end of a scale on which every one of these rates can be drawn.
export function scaleEnd(pairs) {
  return Math.max(0, ...pairs.map(([events, units]) => interval(events, units)?.[1] ?? 0));
}

export function section(title, ...children) {
  const id = `section-${title.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;
  return el("section", { "aria-labelledby": id, "data-key": id }, el("h2", { id }, title), ...children);
}
