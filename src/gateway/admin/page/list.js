// Every rollout, plain split and refused file.

import { el } from "./elements.js";
import { badge, canaryBar, phaseBadges, section, time, weightBar } from "./parts.js";
import { share, stepName } from "./words.js";

export function listView(state) {
  const rollouts = [...state.rollouts.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  const refused = state.files.filter((file) => file.error);
  return [
    el("h1", {}, "Rollouts"),
    refused.map((file) => el("p", { class: "notice bad", "data-key": file.path }, el("strong", {}, file.path), ` is not in force: ${file.error}`)),
    rollouts.length
      ? el("ul", { class: "cards" }, rollouts.map(card))
      : el("p", { class: "dim" }, state.isLoaded ? "There are no rollouts." : "Asking the gateway …"),
    state.splits.length ? section("Splits", el("ul", { class: "cards" }, state.splits.map(split))) : null,
  ];
}

function card(row) {
  const step = row.steps?.[row.step?.index];
  return el(
    "li",
    { class: "card", "data-key": row.name },
    el("div", { class: "line" }, el("a", { href: `#/${encodeURIComponent(row.name)}` }, row.name), phaseBadges(row)),
    el(
      "p",
      { class: "dim" },
      `model ${row.model}`,
      step ? ` · step ${row.step.index + 1} of ${row.step.of}: ${stepName(step)}` : "",
      " · changed ",
      time(row.since),
    ),
    canaryBar(row),
    row.reason && el("p", {}, row.reason),
    row.file.error && el("p", { class: "notice bad" }, `The file is not in force: ${row.file.error}`),
  );
}

function split(row) {
  return el(
    "li",
    { class: "card", "data-key": row.model },
    el("div", { class: "line" }, el("strong", {}, row.model), badge("split")),
    row.arms.map((arm) => weightBar(arm.weight_ppm, arm.version === null ? arm.name : `version ${arm.version}`)),
    row.shadows.map((one) => el("p", { class: "dim" }, `shadow: version ${one.version}, ${share(one.sample_ppm)} of requests`)),
    row.error && el("p", { class: "notice bad" }, row.error),
  );
}
