// A gate's evidence over time against its stopping bounds.

import { el, svg } from "./elements.js";
import { duration } from "./words.js";

const WIDTH = 300;
const HEIGHT = 120;
const LEFT = 36;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 20;
// What goes further beyond the highest bound than this many times its height is drawn at the edge.
const BEYOND = 2.5;
const MOST = 600;

// Samples of every gate, by rollout, step and gate: what this page has received since it was opened.
export class Samples {
  #series = new Map();

  take(row, atS) {
    for (const gate of row.gates) {
      const { log_e_harm: harm, log_e_pass: pass } = gate.numbers;
      if (harm == null && pass == null) continue;
      const key = keyOf(row, gate);
      const series = this.#series.get(key) ?? [];
      series.push({ atS, harm, pass });
      this.#series.set(key, series.length > MOST ? series.filter((_, i) => i % 2 === 0 || i === series.length - 1) : series);
    }
  }

  forget(names) {
    for (const key of this.#series.keys()) if (!names.has(JSON.parse(key)[0])) this.#series.delete(key);
  }

  of(row, gate) {
    return this.#series.get(keyOf(row, gate)) ?? [];
  }
}

function keyOf(row, gate) {
  return JSON.stringify([row.name, row.rollout_id, row.step.index, gate.name]);
}

// Draws log e-values (nats): harm and pass, each with the bound at which it decides. Null without evidence.
export function plot(gate, series) {
  const { log_e_harm: harm, log_bound_harm: harmBound } = gate.numbers;
  const { log_e_pass: pass, log_bound_pass: passBound } = gate.numbers;
  const curves = [
    { of: "harm", value: harm, bound: harmBound },
    { of: "pass", value: pass, bound: passBound },
  ].filter((curve) => curve.value != null && curve.bound != null);
  if (!curves.length) return null;
  const values = curves.flatMap((c) => [c.bound, c.value, ...series.map((s) => s[c.of] ?? 0)]);
  const highest = Math.max(...curves.map((c) => c.bound));
  const top = Math.min(Math.max(...values), BEYOND * highest) * 1.1;
  const bottom = Math.max(Math.min(0, ...values), -highest);
  const to = series.at(-1)?.atS ?? 0;
  const from = Math.min(series[0]?.atS ?? 0, to - 1);
  const x = (atS) => LEFT + ((atS - from) / (to - from)) * (WIDTH - LEFT - RIGHT);
  const y = (v) => TOP + ((top - Math.min(top, Math.max(bottom, v))) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
  const drawing = svg(
    "svg",
    { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": described(curves) },
    svg("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(0), y2: y(0) }),
    curves.every((c) => y(0) - y(c.bound) > 16) && label(y(0), "0"),
    curves.map((c) => svg("line", { class: `bound ${c.of}`, x1: LEFT, x2: WIDTH - RIGHT, y1: y(c.bound), y2: y(c.bound) })),
    boundLabels(curves, y),
    curves.map((c) => curve(c, series, x, y)),
    series.length > 1 && svg("text", { x: LEFT, y: HEIGHT - 4 }, `${duration(to - from)} ago`),
    svg("text", { x: WIDTH - RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, "now"),
  );
  return el("figure", {}, drawing, el("figcaption", {}, curves.map((c) => key(c))));
}

function curve(c, series, x, y) {
  const points = series.filter((s) => s[c.of] != null).map((s) => [x(s.atS), y(s[c.of])]);
  const [endX, endY] = points.at(-1) ?? [WIDTH - RIGHT, y(c.value)];
  return [
    points.length > 1 && svg("polyline", { class: `curve ${c.of}`, points: points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ") }),
    svg("circle", { class: `end ${c.of}`, cx: endX.toFixed(1), cy: endY.toFixed(1), r: 3 }),
  ];
}

function boundLabels(curves, y) {
  const places = curves.map((c) => y(c.bound));
  const isClose = places.length > 1 && Math.abs(places[0] - places[1]) < 12;
  return curves.map((c, i) => {
    const lower = isClose && places[i] >= Math.max(...places) ? 6 : 0;
    const upper = isClose && places[i] < Math.max(...places) ? -5 : 0;
    return label(places[i] + lower + upper, c.bound.toFixed(1), c.of);
  });
}

function label(y, text, of = "") {
  return svg("text", { class: of, x: LEFT - 7, y: (y + 3).toFixed(1), "text-anchor": "end" }, text);
}

function key(c) {
  const [what, then] = c.of === "harm" ? ["harm", "withdraws"] : ["pass", "passes"];
  return el("span", { class: `key ${c.of}` }, `${what} ${c.value.toFixed(1)}, ${then} at ${c.bound.toFixed(1)}`);
}

function described(curves) {
  return `Evidence in nats. ${curves.map((c) => `For ${c.of}: ${c.value.toFixed(1)} of ${c.bound.toFixed(1)}`).join(". ")}.`;
}
