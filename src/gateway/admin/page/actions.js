// What operators do here: the buttons that make sense now, a confirmation that says what will happen, the request.

import { el } from "./elements.js";
import { share } from "./words.js";

const PREPARING = ["resolving", "loading", "warming"];
const STEPPING = ["baking", "holding", "awaiting_approval", "paused_step"];

export function verbs(row) {
  const isStepping = STEPPING.includes(row.phase);
  const isInProgress = isStepping || PREPARING.includes(row.phase) || row.phase === "promoting";
  return [
    row.phase === "awaiting_approval" && "approve",
    (row.paused || row.phase === "paused_step") && "resume",
    isInProgress && !row.paused && "pause",
    isStepping && "promote",
    isInProgress && "abort",
    row.phase === "rollback_window" && "rollback",
    ["aborted", "rolled_back"].includes(row.phase) && "retry",
  ].filter(Boolean);
}

export function buttons(row, session) {
  return el(
    "div",
    { class: "buttons", "data-key": "buttons", role: "group", "aria-label": `Act on ${row.name}` },
    verbs(row).map((verb) => {
      const isOff = verb === "approve" && (!session.isOpen || !row.approvals.evidence_hash);
      const title = isOff ? (session.isOpen ? "There is no evidence to approve of yet" : "Needs a session: gateway rollout login") : null;
      return el("button", { type: "button", "data-key": verb, "data-verb": verb, class: tone(verb), disabled: isOff, title }, titled(verb));
    }),
  );
}

function tone(verb) {
  if (verb === "abort" || verb === "rollback") return "bad";
  return verb === "approve" ? "good" : "";
}

function titled(verb) {
  return { rollback: "Roll back" }[verb] ?? verb[0].toUpperCase() + verb.slice(1);
}

export function consequence(verb, row) {
  const named = (arm) => {
    const number = row.targets[arm]?.version;
    return number == null ? arm : `${arm} (version ${number})`;
  };
  const { needed, given } = row.approvals;
  switch (verb) {
    case "pause":
      return `It stays where it is: the canary keeps ${share(row.weight_ppm)} of the keys until somebody resumes it. A gate that finds harm still withdraws it.`;
    case "resume":
      return "It goes on: it may advance as soon as the step's conditions are met.";
    case "approve":
      return `You approve of the evidence below, in your name: approval ${given.length + 1} of ${needed}.`;
    case "promote":
      return `The ${named("canary")} gets every request now, whatever the gates say. Approvals that the file asks for are still needed.`;
    case "abort":
      return `The ${named("canary")} ${row.weight_ppm ? `loses its ${share(row.weight_ppm)} of the keys at once` : "is withdrawn"}; ${named("stable")} answers everything. It starts again only with a retry or another file.`;
    case "rollback":
      return `The old stable answers everything again at once, in place of the ${named("canary")}.`;
    default:
      return "It begins again at its first step, with fresh evidence.";
  }
}

// The dialog that asks before anything is done. `act(row, verb, reason, evidence)` does it, or throws with words.
export class Confirmation {
  #asked = null;
  #act;

  constructor(act) {
    this.#act = act;
    part("dialog-cancel").addEventListener("click", () => part("dialog").close());
    part("dialog-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#confirmed();
    });
  }

  ask(row, verb) {
    // What was on the screen is what is approved, whatever comes in while the dialog is open.
    const evidence = verb === "approve" ? row.approvals.evidence_hash : "";
    this.#asked = { row, verb, evidence };
    part("dialog-title").textContent = `${titled(verb)} ${row.name}?`;
    part("dialog-what").textContent = consequence(verb, row);
    part("dialog-evidence").textContent = evidence ? `evidence ${evidence}` : "";
    part("dialog-evidence").hidden = !evidence;
    part("dialog-do").textContent = titled(verb);
    part("dialog-do").className = tone(verb) || "good";
    part("dialog-do").disabled = false;
    part("reason").value = "";
    this.#say("");
    part("dialog").showModal();
    part("reason").focus();
  }

  async #confirmed() {
    const { row, verb, evidence } = this.#asked;
    part("dialog-do").disabled = true;
    this.#say("");
    try {
      await this.#act(row, verb, part("reason").value.trim(), evidence);
      part("dialog").close();
    } catch (error) {
      this.#say(error.message);
    } finally {
      part("dialog-do").disabled = false;
    }
  }

  #say(text) {
    part("dialog-error").textContent = text;
    part("dialog-error").hidden = !text;
  }
}

function part(id) {
  return document.getElementById(id);
}
