// Asks the gateway: documents, the stream of changes, an operator's wishes, and who the session's user is.

const KEPT = "gateway-session";
// A heartbeat comes every 15 s; two that are missing are no accident.
const SILENCE_MS = 35_000;
const AGAIN_MS = 3_000;

// Addresses are relative to the page, /rollouts/ui, so that it works under a proxy's prefix too.
export const INDEX = "../rollouts";
const EVENTS = "events";

export async function fetched(address, options = {}) {
  let reply;
  try {
    reply = await fetch(address, { cache: "no-store", redirect: "error", ...options });
  } catch {
    throw new Error("The gateway does not answer.");
  }
  const document = await reply.json().catch(() => ({}));
  if (reply.ok) return document;
  const error = new Error(document.error ?? `The gateway answers ${reply.status}.`);
  error.status = reply.status;
  throw error;
}

export function rolloutAddress(name, verb = "") {
  return [name, verb].filter(Boolean).map(encodeURIComponent).join("/");
}

// The session that `gateway rollout login` has opened: kept for this tab, and out of the address at once.
export class Session {
  user = "";
  problem = "";

  take() {
    const found = /^#session=([\w-]+)$/.exec(location.hash);
    if (!found) return false;
    sessionStorage.setItem(KEPT, found[1]);
    history.replaceState(null, "", `${location.pathname}${location.search}#/`);
    return true;
  }

  get isOpen() {
    return this.user !== "";
  }

  get headers() {
    const secret = sessionStorage.getItem(KEPT);
    return secret ? { authorization: `Bearer ${secret}` } : {};
  }

  // Finds out whose it is; a session that is over is forgotten.
  async check() {
    this.problem = "";
    if (!sessionStorage.getItem(KEPT)) return;
    try {
      this.user = (await fetched("ui/session", { headers: this.headers })).user;
    } catch (error) {
      if (error.status === 403) this.end();
      this.problem = error.message;
    }
  }

  end() {
    sessionStorage.removeItem(KEPT);
    this.user = "";
    this.problem = "";
  }
}

// Follows the stream, begins anew when it breaks or falls silent, and says how it stands.
export class Stream {
  #source = null;
  #watchdog = 0;
  #again = 0;

  // `on` has rollout(document), now(wallS) and standing(isLive).
  constructor(on) {
    this.on = on;
  }

  open() {
    this.#close();
    const source = new EventSource(EVENTS);
    this.#source = source;
    source.addEventListener("rollout", (event) => {
      this.#heard();
      this.on.rollout(JSON.parse(event.data));
    });
    source.addEventListener("now", (event) => {
      this.#heard();
      this.on.now(JSON.parse(event.data).now);
    });
    source.addEventListener("error", () => this.#lost());
    this.#watch();
  }

  #heard() {
    this.on.standing(true);
    this.#watch();
  }

  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#lost(), SILENCE_MS);
  }

  #lost() {
    this.#close();
    this.on.standing(false);
    this.#again = setTimeout(() => this.open(), AGAIN_MS);
  }

  #close() {
    clearTimeout(this.#watchdog);
    clearTimeout(this.#again);
    this.#source?.close();
  }
}
