// The page about fleets: asks how they are as long as somebody looks, and shows it.

import { el, show } from "./elements.js";
import { fleetsView } from "./fleet.js";
import { fetched } from "./gateway.js";
import { tick } from "./parts.js";
import { moment, setNow } from "./words.js";

// Relative to the page, /fleets/ui, so that it works under a proxy's prefix too.
const FLEETS = "../fleets";
const EVERY_MS = 2000;
const PATIENCE_MS = 10_000;
const TICK_MS = 1000;

let states = new Map();
let heardAtS = 0;
let isAsking = false;

async function ask() {
  if (isAsking || document.hidden) return;
  isAsking = true;
  try {
    took(await fetched(FLEETS, { signal: AbortSignal.timeout(PATIENCE_MS) }));
    standing(true);
  } catch (error) {
    standing(false, error.message);
  } finally {
    isAsking = false;
  }
}

function took(answer) {
  setNow(answer.now);
  show(part("main"), fleetsView(answer.fleets));
  const before = states;
  states = new Map();
  const changes = [];
  for (const fleet of answer.fleets) {
    for (const endpoint of fleet.endpoints) {
      const name = `${endpoint.address} of ${fleet.fleet}`;
      states.set(name, endpoint.state);
      if (heardAtS && before.get(name) !== endpoint.state) changes.push(`${name}: ${endpoint.state}. ${endpoint.reason}`);
    }
  }
  if (changes.length) part("said").textContent = changes.join(" ");
}

function standing(isLive, problem = "") {
  if (isLive) heardAtS = Date.now() / 1000;
  else if (!heardAtS) show(part("main"), el("h1", {}, "Fleets"));
  show(part("stream"), isLive ? "live" : "stale");
  part("stream").className = `badge ${isLive ? "good" : "bad"}`;
  part("stale").hidden = isLive;
  const seen = heardAtS ? ` This is what was seen on ${moment(heardAtS)}.` : "";
  show(part("stale"), isLive ? "" : `${problem} Trying again.${seen}`);
}

function part(id) {
  return document.getElementById(id);
}

document.addEventListener("visibilitychange", () => void ask());
setInterval(() => void ask(), EVERY_MS);
setInterval(tick, TICK_MS);
void ask();
