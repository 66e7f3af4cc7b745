// Numbers, times and states in words.

// Between a number and its unit no line breaks.
const GAP = "\u00a0";
const Z95 = 1.959964;
const UNITS = [["d", 86400], ["h", 3600], ["min", 60]];

// Seconds by which the gateway's clock is ahead of this one.
let ahead = 0;

export function setNow(wallS) {
  ahead = wallS - Date.now() / 1000;
}

export function now() {
  return Date.now() / 1000 + ahead;
}

export function duration(seconds) {
  for (const [unit, size] of UNITS) {
    if (seconds >= size) return `${trimmed(seconds / size, 1)}${GAP}${unit}`;
  }
  return `${Math.max(0, Math.round(seconds))}${GAP}s`;
}

export function ago(wallS) {
  const age = now() - wallS;
  return age < 1 ? "just now" : `${duration(age)} ago`;
}

export function moment(wallS) {
  return new Date(wallS * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
}

export function count(number) {
  return Number(number).toLocaleString("en");
}

export function share(ppm) {
  return `${trimmed(ppm / 10000, 4)}${GAP}%`;
}

export function percent(rate) {
  return `${Number((100 * rate).toPrecision(3))}${GAP}%`;
}

function trimmed(number, digits) {
  return String(Number(number.toFixed(digits)));
}

// The 95 % score interval of a rate (Wilson 1927): low and high; null without units.
export function interval(events, units) {
  if (!units) return null;
  const rate = Math.min(1, events / units);
  const spread = Z95 * Math.sqrt((rate * (1 - rate)) / units + (Z95 * Z95) / (4 * units * units));
  const centre = rate + (Z95 * Z95) / (2 * units);
  const scale = 1 + (Z95 * Z95) / units;
  return [events ? (centre - spread) / scale : 0, rate < 1 ? (centre + spread) / scale : 1];
}

export function phaseName(phase) {
  return { paused_step: "waiting", awaiting_approval: "awaiting approval" }[phase] ?? phase.replaceAll("_", " ");
}

const BAD = new Set(["aborting", "aborted", "rolling_back", "rolled_back"]);
const GOOD = new Set(["promoting", "rollback_window", "promoted"]);
const WAITING = new Set(["holding", "awaiting_approval", "paused_step"]);

export function phaseTone(phase) {
  if (BAD.has(phase)) return "bad";
  if (GOOD.has(phase)) return "good";
  if (WAITING.has(phase)) return "wait";
  return phase === "idle" ? "" : "busy";
}

export function stepName(step) {
  switch (step.kind) {
    case "shadow":
      return `Shadow ${share(step.sample_ppm)}`;
    case "weight":
      return `Canary ${share(step.weight_ppm)}`;
    case "pause":
      return step.duration_s == null ? "Pause until resumed" : `Pause ${duration(step.duration_s)}`;
    case "approve":
      return step.count === 1 ? "Approval" : `${step.count} approvals`;
    default:
      return "Promote";
  }
}

export function stepAsks(step) {
  const asks = [];
  if (step.min_bake_s != null) asks.push(`bakes ${duration(step.min_bake_s)} to ${duration(step.max_bake_s)}`);
  if (step.gates?.length) asks.push(`gates ${step.gates.join(", ")}`);
  if (step.require) asks.push({ non_inferior: "must be shown to be no worse", no_harm: "no harm shown" }[step.require]);
  if (step.kind === "approve") {
    if (step.roles?.length) asks.push(`by ${step.roles.join(" or ")}`);
    if (step.not_author) asks.push("not by the author");
    if (step.expires_s != null) asks.push(`counts for ${duration(step.expires_s)}`);
  }
  if (step.keep_stable_warm_s) asks.push(`old stable kept ${duration(step.keep_stable_warm_s)}`);
  return asks.join("; ");
}
