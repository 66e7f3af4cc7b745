// Calls ModelInfer over one connection of @grpc/grpc-js, one call after the other.
//
// Usage: node grpc_js.mjs < {"address", "protos", "method", "request", "calls": [{"traceparent", "timeout_ms"}]}
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createRequire } from "node:module";

const given = JSON.parse(readFileSync(0, "utf8"));
const require = createRequire(join(given.packages, "package.json"));
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const definition = loader.loadSync(join(given.protos, "open_inference.proto"), { keepCase: true });
const { GRPCInferenceService } = grpc.loadPackageDefinition(definition).inference;
const client = new GRPCInferenceService(given.address, grpc.credentials.createInsecure());
const request = { ...given.request, raw_input_contents: given.request.raw_input_contents.map((raw) => Buffer.from(raw, "base64")) };

function infer({ traceparent, timeout_ms }) {
  const metadata = new grpc.Metadata();
  if (traceparent) metadata.set("traceparent", traceparent);
  const options = timeout_ms ? { deadline: Date.now() + timeout_ms } : {};
  return new Promise((resolve, reject) => {
    client.ModelInfer(request, metadata, options, (error) => (error ? reject(error) : resolve()));
  });
}

function stream() {
  return new Promise((resolve, reject) => {
    const call = client.ModelStreamInfer();
    call.on("data", () => call.end());
    call.on("error", reject);
    call.on("end", resolve);
    call.write(request);
  });
}

if (given.method === "ModelStreamInfer") await stream();
else for (const call of given.calls) await infer(call);
client.close();
