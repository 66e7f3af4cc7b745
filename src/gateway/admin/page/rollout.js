// Everything about one rollout.

import { buttons } from "./actions.js";
import { el } from "./elements.js";
import { badge, canaryBar, phaseBadges, rate, scaleEnd, section, time } from "./parts.js";
import { plot } from "./plot.js";
import { count, duration, moment, phaseName, stepAsks, stepName } from "./words.js";

const SHOWN = 20;
const VERDICT_TONES = { pass: "good", harm: "bad", hold: "wait" };

export function rolloutView(state, name) {
  const row = state.rollouts.get(name);
  if (!row) {
    const words = state.isLoaded ? `There is no rollout "${name}" any more.` : "Asking the gateway …";
    return [el("h1", {}, name), el("p", {}, words), el("a", { href: "#/" }, "All rollouts")];
  }
  return [
    headline(row),
    buttons(row, state.session),
    row.steps.length ? section("Steps", steps(row)) : null,
    section("Arms", arms(row)),
    shadows(row),
    row.gates.length ? section("Gates", gates(row, state.samples)) : null,
    approvals(row, state.session),
    section("History", history(row)),
    section("Audit log", audit(state.audits.get(name))),
  ];
}

function headline(row) {
  const step = row.steps[row.step.index];
  return el(
    "div",
    { class: "headline", "data-key": "headline" },
    el("div", { class: "line" }, el("h1", {}, row.name), phaseBadges(row)),
    el(
      "p",
      { class: "dim" },
      `model ${row.model}`,
      step ? ` · step ${row.step.index + 1} of ${row.step.of}: ${stepName(step)}` : "",
      " · changed ",
      time(row.since),
    ),
    row.reason && el("p", { class: `reason ${row.tombstone ? "bad" : ""}` }, row.reason),
    canaryBar(row),
    row.frozen && el("p", { class: "notice" }, "Frozen: nothing starts or advances", row.frozen_until ? ` until ${moment(row.frozen_until)}` : "", "; a withdrawal still happens."),
    row.paused && el("p", { class: "notice" }, "Paused: nothing advances; a withdrawal still happens."),
    row.file.error && el("p", { class: "notice bad" }, `The file is not in force: ${row.file.error}`),
    row.store?.lost && el("p", { class: "notice bad" }, "The gateway cannot record changes: nothing advances until it can."),
  );
}

function steps(row) {
  const isOver = ["promoted", "rollback_window"].includes(row.phase);
  const present = row.step.index;
  return el(
    "ol",
    { class: "steps" },
    row.steps.map((step, index) => {
      const isPresent = index === present && row.phase !== "promoted";
      const isDone = index < present || isOver;
      return el(
        "li",
        { class: isPresent ? `present ${row.tombstone ? "bad" : ""}` : isDone ? "done" : "", "aria-current": isPresent ? "step" : null },
        el("strong", {}, stepName(step)),
        isDone && !isPresent && el("span", { class: "visually-hidden" }, " (done)"),
        el("small", {}, stepAsks(step)),
        isPresent && baked(row.bake),
      );
    }),
  );
}

function baked({ served_s: served, min_s: least, max_s: most, inconclusive }) {
  if (least == null) return null;
  const words = `${duration(served)} of ${duration(least)}${most > least ? `, at most ${duration(most)}` : ""}`;
  return [
    el("progress", { max: Math.max(least, 1), value: Math.min(served, Math.max(least, 1)), "aria-label": `served ${words}` }),
    el("small", {}, `served ${words}`, inconclusive ? "; ended without a verdict" : ""),
  ];
}

function arms(row) {
  const names = [...new Set(["stable", "canary", ...Object.keys(row.arms)])];
  const counted = names.map((name) => row.arms[name]);
  const most = scaleEnd(counted.filter(Boolean).map((c) => [c.errors, c.units]));
  const line = (title, cell) =>
    el("tr", {}, el("th", { scope: "row" }, title), names.map((name, i) => el("td", {}, cell(counted[i], name) ?? "–")));
  return [
    el(
      "table",
      { class: "arms" },
      el("thead", {}, el("tr", {}, el("td"), names.map((name) => el("th", { scope: "col" }, name)))),
      el(
        "tbody",
        {},
        line("Version", (_, name) => version(row.targets[name])),
        line("Requests", (c) => c && count(c.requests)),
        line("Errors", (c) => c && rate(c.errors, c.units, most)),
        row.thresholds_s.map((threshold, i) => {
          const end = scaleEnd(counted.filter(Boolean).map((c) => [c.exceeded[i] ?? 0, c.measured]));
          return line(`Over ${Number((threshold * 1000).toPrecision(3))} ms`, (c) => c && rate(c.exceeded[i] ?? 0, c.measured, end));
        }),
        line("Fallbacks", (c) => c && count(c.fallbacks)),
        line("Crashes", (c) => c && count(c.crashes)),
      ),
    ),
    el("p", { class: "dim" }, "Of this step alone. Ranges are 95 % intervals of the rate."),
  ];
}

function version(target) {
  if (!target) return null;
  const isNews = (text) => text && text !== String(target.version);
  const number = target.version == null ? "not resolved" : `version ${target.version}`;
  return [
    el("span", { title: target.digest || null }, number),
    isNews(target.label) && el("small", {}, ` ${target.label}`),
    isNews(target.text) && el("small", { class: "dim" }, ` ${target.text}`),
  ];
}

function shadows(row) {
  const entries = Object.entries(row.shadow_counts);
  if (!entries.length) return null;
  return section("Shadows", entries.map(([name, counts]) => shadow(name, counts)));
}

function shadow(name, counts) {
  const dropped = Object.values(counts.dropped).reduce((sum, one) => sum + one, 0);
  const why = Object.entries(counts.dropped).filter(([, n]) => n).map(([reason, n]) => `${count(n)} ${reason}`).join(", ");
  return el(
    "div",
    { class: "card", "data-key": name },
    el("h3", {}, name),
    el(
      "p",
      {},
      `${count(counts.compared)} of ${count(counts.mirrored)} mirrored requests compared, ${count(counts.failed)} failed, `,
      `${count(dropped)} dropped${why ? ` (${why})` : ""}. Disagreement:`,
    ),
    rate(counts.disagreed, counts.compared, scaleEnd([[counts.disagreed, counts.compared]])),
    Object.entries(counts.slices).map(([slice, values]) => sliced(slice, values)),
  );
}

function sliced(slice, values) {
  const rows = Object.entries(values).sort(([, a], [, b]) => b[1] / (b[0] || 1) - a[1] / (a[0] || 1));
  const most = scaleEnd(rows.map(([, [compared, differ]]) => [differ, compared]));
  return el(
    "table",
    { class: "slices" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, slice), el("th", { scope: "col" }, "Pairs"), el("th", { scope: "col" }, "Disagree"))),
    el(
      "tbody",
      {},
      rows.map(([value, [compared, differ]]) =>
        el("tr", {}, el("th", { scope: "row" }, value), el("td", {}, count(compared)), el("td", {}, rate(differ, compared, most))),
      ),
    ),
  );
}

function gates(row, samples) {
  const plotted = [];
  const plain = [];
  for (const gate of row.gates) {
    const drawing = plot(gate, samples.of(row, gate));
    (drawing ? plotted : plain).push(
      el(
        "li",
        { class: "card", "data-key": gate.name },
        el("div", { class: "line" }, el("h3", {}, gate.name), badge(gate.verdict, VERDICT_TONES[gate.verdict])),
        el("p", {}, gate.reason),
        drawing,
      ),
    );
  }
  return [plotted, plain].filter((cards) => cards.length).map((cards) => el("ul", { class: "cards wide" }, cards));
}

function approvals(row, session) {
  const { needed, roles, given, evidence_hash: evidence } = row.approvals;
  if (!needed) return null;
  const missing = Math.max(0, needed - given.length);
  const by = roles.length ? ` by ${roles.join(" or ")}` : "";
  return section(
    "Approvals",
    el("p", {}, missing ? `${given.length} of ${needed} given; ${missing} missing${by}.` : `All ${needed} given.`),
    given.length ? el("ul", {}, given.map((one) => el("li", {}, one.who, " ", time(one.at)))) : null,
    evidence && el("p", { class: "dim" }, "Evidence ", el("code", { class: "hash" }, evidence)),
    session.isOpen ? null : el("p", { class: "dim" }, "To approve here, open a session: see the top of the page."),
  );
}

function history(row) {
  const moves = row.history.slice(-SHOWN).reverse();
  if (!moves.length) return el("p", { class: "dim" }, "Nothing has happened yet.");
  return el(
    "ol",
    { class: "log" },
    moves.map((move) =>
      el(
        "li",
        {},
        time(move.at),
        el(
          "span",
          {},
          el("strong", {}, move.from === move.to ? phaseName(move.to) : `${phaseName(move.from)} → ${phaseName(move.to)}`),
          move.step >= 0 ? `, step ${move.step + 1}` : "",
          move.who && el("span", { class: "dim" }, ` ${move.who}`),
          move.reason && el("span", { class: "why" }, move.reason),
        ),
      ),
    ),
  );
}

function audit(records) {
  if (!records) return el("p", { class: "dim" }, "Asking the gateway …");
  if (!records.length) return el("p", { class: "dim" }, "There is nothing on record.");
  return el(
    "ol",
    { class: "log" },
    records.slice(-SHOWN).reverse().map((record) =>
      el(
        "li",
        {},
        time(record.at),
        el(
          "span",
          {},
          el("strong", {}, `${record.kind} ${record.what}`),
          el("span", { class: "dim" }, ` ${record.who}`),
          el("span", { class: "why" }, detail(record.detail)),
          el("code", { class: "hash", title: record.hash }, `#${record.seq} ${record.hash.slice(0, 12)}`),
        ),
      ),
    ),
  );
}

function detail(members) {
  const said = Object.entries(members).filter(([name, value]) => !["serial", "at"].includes(name) && value !== "" && value !== null);
  const text = ([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`;
  return said.map(text).join("; ").replaceAll(/\b([0-9a-f]{12})[0-9a-f]{52}\b/g, "$1…");
}
