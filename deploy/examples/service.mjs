// Handles events in JavaScript over HTTP, and checks that they come from the worker: node service.mjs
// Node 18 or later, and no packages. In config.toml; SECRET in the environment is what stands in webhook.secret:
//
//     [targets.billing]
//     url = "http://127.0.0.1:8080/events"
//     allow = ["127.0.0.1"]               # an address of this machine
//     secret_files = ["webhook.secret"]   # echo "whsec_$(openssl rand -base64 32)" > webhook.secret

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const secret = (process.env.SECRET ?? "").trim().replace(/^whsec_/, "");

const handlers = {
  // What it returns is done together with the event's acknowledgement, or not at all.
  async "order.created"(order) {
    if (order.amount <= 0) return { permanent: "there is nothing to charge" };
    return { emit: [{ stream: "payments", type: "payment.requested", data: order }] };
  },
};

function isGenuine(headers, body) {
  const stamp = headers["webhook-timestamp"];
  if (!(Math.abs(Date.now() / 1000 - Number(stamp)) <= 300)) return false;
  const hmac = createHmac("sha256", Buffer.from(secret, "base64"));
  hmac.update(`${headers["webhook-id"]}.${stamp}.`).update(body);
  const right = Buffer.from("v1," + hmac.digest("base64"));
  return (headers["webhook-signature"] ?? "").split(" ").some((text) => {
    const given = Buffer.from(text);
    return given.length === right.length && timingSafeEqual(given, right);
  });
}

async function answer(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  const body = Buffer.concat(parts);
  if (secret && !isGenuine(request.headers, body)) return [401, { error: "the signature is wrong" }];
  const handler = handlers[request.headers["ce-type"]];
  if (!handler) return [422, { error: "nobody handles this type" }];
  return [200, (await handler(JSON.parse(body))) ?? {}];
}

createServer(async (request, response) => {
  const [status, said] = await answer(request).catch((error) => {
    console.error(error);
    return [500, { error: String(error) }];
  });
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(said));
}).listen(Number(process.env.PORT ?? 8080), "127.0.0.1");
