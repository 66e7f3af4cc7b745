// Calls a gateway through @grpc/grpc-js with stubs that @grpc/proto-loader makes of protos/ at run time.
//
// Usage: node client.mjs ADDRESS PROTOS_DIR < CASE
// CASE is {"method", "request"}; prints {"code", "message"} or {"responses": [...]}. Tensors travel as
// base64. Methods: any unary one of GRPCInferenceService, "ModelStreamInfer" (request: a list), "Health".
import { readFileSync } from "node:fs";
import { join } from "node:path";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [address, protos] = process.argv.slice(2);

function load(file) {
  const options = { keepCase: true, longs: Number, enums: String, defaults: false, oneofs: true };
  return grpc.loadPackageDefinition(loader.loadSync(join(protos, file), { ...options, includeDirs: [protos] }));
}

function decoded(request) {
  const raw = request.raw_input_contents;
  return raw ? { ...request, raw_input_contents: raw.map((text) => Buffer.from(text, "base64")) } : request;
}

function encoded(response) {
  const raw = response.raw_output_contents;
  return raw ? { ...response, raw_output_contents: raw.map((bytes) => bytes.toString("base64")) } : response;
}

function unary(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](decoded(request), (error, response) => (error ? reject(error) : resolve([encoded(response)])));
  });
}

function streamed(client, requests) {
  return new Promise((resolve, reject) => {
    const responses = [];
    const stream = client.ModelStreamInfer();
    stream.on("data", ({ error_message, infer_response }) => {
      responses.push({ error_message, infer_response: encoded(infer_response) });
    });
    stream.on("error", reject);
    stream.on("end", () => resolve(responses));
    requests.forEach((request) => stream.write(decoded(request)));
    stream.end();
  });
}

async function call({ method, request }) {
  const credentials = grpc.credentials.createInsecure();
  if (method === "Health") {
    const health = new (load("health.proto").grpc.health.v1.Health)(address, credentials);
    return unary(health, "Check", request);
  }
  const client = new (load("open_inference.proto").inference.GRPCInferenceService)(address, credentials);
  return method === "ModelStreamInfer" ? streamed(client, request) : unary(client, method, request);
}

function print(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

try {
  print({ responses: await call(JSON.parse(readFileSync(0, "utf8"))) });
} catch (error) {
  print({ code: grpc.status[error.code], message: error.details ?? String(error) });
}
