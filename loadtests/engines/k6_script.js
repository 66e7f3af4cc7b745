// Open loop of one repeated request over HTTP or gRPC; the case is the file $CASE, figures go to $RESULT.
//
// k6 starts iterations on schedule and drops those it has no virtual user for. Latency counts from when an
// iteration was due, not from when its user got to it (Date.now() has milliseconds; engines/k6.py says how
// that is used).
import exec from "k6/execution";
import http from "k6/http";
import grpc from "k6/net/grpc";
import { Counter, Trend } from "k6/metrics";

const given = JSON.parse(open(__ENV.CASE));
const body = given.body ? open(given.body, "b") : null;
const client = given.body ? null : new grpc.Client();
if (client) client.load([given.protos], "open_inference.proto");

const ends = { good: new Counter("good"), rejected: new Counter("rejected"), expired: new Counter("expired"), failed: new Counter("failed") };
const fromDue = new Trend("from_due", true);
const rejectedTime = new Trend("rejected_time", true);

export const options = {
  scenarios: { load: given.scenario },
  summaryTrendStats: ["count", "p(50)", "p(90)", "p(99)", "p(99.9)", "max"],
  discardResponseBodies: true,
};

const HTTP_ENDS = { 200: "good", 429: "rejected", 503: "rejected", 504: "expired" };
const GRPC_ENDS = [
  [grpc.StatusOK, "good"],
  [grpc.StatusResourceExhausted, "rejected"],
  [grpc.StatusUnavailable, "rejected"],
  [grpc.StatusDeadlineExceeded, "expired"],
];
let connected = false;

function request() {
  if (body) return HTTP_ENDS[http.post(given.url, body, { headers: given.headers }).status];
  if (!connected) {
    client.connect(given.address, { plaintext: true });
    connected = true;
  }
  const { status } = client.invoke(given.method, given.request);
  const found = GRPC_ENDS.find(([code]) => code === status); // statuses are objects: no keys of a map
  return found && found[1];
}

export default function () {
  const begun = Date.now();
  const due = given.rate ? exec.scenario.startTime + (exec.scenario.iterationInTest * 1000) / given.rate : begun;
  const end = request() || "failed";
  ends[end].add(1);
  const took = Date.now() - Math.min(due, begun);
  if (end === "good") fromDue.add(took);
  if (end === "rejected") rejectedTime.add(took);
}

export function handleSummary(data) {
  return { [__ENV.RESULT]: JSON.stringify(data.metrics) };
}
