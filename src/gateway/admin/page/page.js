// The page: what it knows, what it shows, and what makes either change.

import { Confirmation } from "./actions.js";
import { el, show } from "./elements.js";
import { fetched, INDEX, rolloutAddress, Session, Stream } from "./gateway.js";
import { listView } from "./list.js";
import { tick } from "./parts.js";
import { Samples } from "./plot.js";
import { rolloutView } from "./rollout.js";
import { moment, phaseName, setNow } from "./words.js";

const TICK_MS = 1000;

const state = {
  rollouts: new Map(),
  audits: new Map(),
  files: [],
  splits: [],
  samples: new Samples(),
  session: new Session(),
  isLoaded: false,
  heardAtS: 0,
};
let isDrawing = false;

// Many documents may come at once; they are drawn once.
function draw() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    const name = chosen();
    document.title = name ? `${name} - Rollouts` : "Rollouts";
    show(part("main"), name ? rolloutView(state, name) : listView(state));
    show(part("session"), sessionLine());
  });
}

function chosen() {
  if (!location.hash.startsWith("#/")) return "";
  try {
    return decodeURIComponent(location.hash.slice(2));
  } catch {
    return "";
  }
}

function sessionLine() {
  const { session } = state;
  if (session.isOpen) {
    return ["Session of ", el("strong", {}, session.user), " ", el("button", { type: "button", "data-session": "end" }, "End")];
  }
  return [
    session.problem ? `${session.problem} ` : "No session, so no approvals. ",
    "Run ",
    el("code", {}, "gateway rollout login"),
    " on the gateway's host and open the address that it prints.",
  ];
}

function took(row) {
  const before = state.rollouts.get(row.name);
  state.rollouts.set(row.name, row);
  state.samples.take(row, performance.now() / 1000);
  if (before && (before.phase !== row.phase || before.step.index !== row.step.index)) {
    const step = row.step.kind ? `, step ${row.step.index + 1} of ${row.step.of}` : "";
    part("said").textContent = `${row.name}: ${phaseName(row.phase)}${step}. ${row.reason}`;
  }
  if (row.name === chosen() && !sameRecords(before, row)) void readAudit(row.name);
  draw();
}

// Whatever is recorded shows in one of these, or is about another rollout.
function sameRecords(before, row) {
  const marks = (of) => JSON.stringify([of?.history.at(-1), of?.approvals, of?.paused, of?.file, of?.epoch]);
  return marks(before) === marks(row);
}

async function readAudit(name) {
  try {
    const answer = await fetched(rolloutAddress(name));
    state.audits.set(name, answer.audit);
    draw();
  } catch {
    // The stream says how the gateway stands.
  }
}

// The stream tells of what there is and changes; what is gone, splits and files are in the index alone.
async function readIndex() {
  try {
    const index = await fetched(INDEX);
    setNow(index.now);
    state.files = index.files;
    state.splits = index.splits;
    keep(new Set(index.rollouts.map((row) => row.name)));
  } catch {
    // As above.
  }
}

function keep(names) {
  for (const name of state.rollouts.keys()) if (!names.has(name)) state.rollouts.delete(name);
  state.samples.forget(names);
  draw();
}

function standing(isLive) {
  if (isLive) state.heardAtS = Date.now() / 1000;
  show(part("stream"), isLive ? "live" : "stale");
  part("stream").className = `badge ${isLive ? "good" : "bad"}`;
  part("stale").hidden = isLive;
  const seen = state.heardAtS ? ` This is what was seen on ${moment(state.heardAtS)}.` : "";
  show(part("stale"), isLive ? "" : `The gateway does not answer; trying again.${seen}`);
}

async function act(row, verb, reason, evidence) {
  const wish = Object.fromEntries(Object.entries({ reason, evidence }).filter(([, text]) => text));
  try {
    took(await fetched(rolloutAddress(row.name, verb), {
      method: "POST",
      headers: { "content-type": "application/json", ...state.session.headers },
      body: JSON.stringify(wish),
    }));
    part("said").textContent = `${verb}: done`;
  } catch (error) {
    if (error.status === 403) void state.session.check().then(draw);
    throw error;
  } finally {
    void readAudit(row.name);
  }
}

function part(id) {
  return document.getElementById(id);
}

async function opened() {
  state.session.take();
  await state.session.check();
  draw();
}

const confirmation = new Confirmation(act);
const stream = new Stream({
  rollout: took,
  now(wallS) {
    setNow(wallS);
    state.isLoaded = true;
    void readIndex();
    draw();
  },
  standing,
});

document.addEventListener("click", (event) => {
  const verb = event.target.closest("[data-verb]")?.dataset.verb;
  const row = state.rollouts.get(chosen());
  if (verb && row) confirmation.ask(row, verb);
  if (event.target.closest("[data-session]")) {
    state.session.end();
    draw();
  }
});
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#session=")) void opened();
  const name = chosen();
  if (name) void readAudit(name);
  draw();
  scrollTo(0, 0);
  part("main").focus({ preventScroll: true });
});
setInterval(tick, TICK_MS);
if (chosen()) void readAudit(chosen());
void opened();
stream.open();
