// Calls ModelInfer over one connection of k6's grpc-go, one call after the other; the case is in $CASE, a file.
import grpc from "k6/net/grpc";

const given = JSON.parse(open(__ENV.CASE));
const client = new grpc.Client();
client.load([given.protos], "open_inference.proto");

export const options = { vus: 1, iterations: 1 };

function stream() {
  const call = new grpc.Stream(client, "inference.GRPCInferenceService/ModelStreamInfer");
  call.on("data", () => call.end());
  call.on("end", () => client.close());
  call.write(given.request);
}

export default function () {
  client.connect(given.address, { plaintext: true });
  if (given.method === "ModelStreamInfer") {
    stream();
    return;
  }
  for (const { traceparent, timeout_ms } of given.calls) {
    const params = { metadata: traceparent ? { traceparent } : {} };
    if (timeout_ms) params.timeout = timeout_ms;
    const { status, error } = client.invoke("inference.GRPCInferenceService/ModelInfer", given.request, params);
    if (status !== grpc.StatusOK) throw new Error(JSON.stringify(error));
  }
  client.close();
}
