// Handles events in JavaScript: reads them from descriptor 3, and answers on descriptor 4.
// Node 18 or later, and no packages. What is printed goes to the worker's log. In config.toml:
//
//     [targets.billing]
//     command = ["node", "worker.mjs"]
//
//     [handlers."order.created"]
//     target = "billing"

import { createReadStream, writeSync } from "node:fs";
import { createInterface } from "node:readline";

const handlers = {
  // What it returns is done together with the event's acknowledgement, or not at all.
  async "order.created"(order, event, signal) {
    if (order.amount <= 0) return { permanent: "there is nothing to charge" };
    console.log("charging", order.order_id);
    return {
      emit: [{ stream: "payments", type: "payment.requested", data: order }],
      effects: [{ effect: "incr_by", key: "{orders}:charged", by: order.amount }],
    };
  },
};

const running = new Map(); // by the request's id, what cancels it

function say(message) {
  let line = Buffer.from(JSON.stringify(message) + "\n");
  while (line.length > 0) line = line.subarray(writeSync(4, line));
}

async function handle({ id, event }) {
  const controller = new AbortController();
  running.set(id, controller);
  let answer;
  try {
    answer = (await handlers[event.type](event.data, event, controller.signal)) ?? {};
  } catch (error) { // it is tried again, and in the end a dead letter
    console.error(error);
    answer = { error: String(error) };
  }
  running.delete(id);
  say({ id, answer });
  if (draining && running.size === 0) process.exit(0);
}

let draining = false;
for await (const line of createInterface({ input: createReadStream(null, { fd: 3 }) })) {
  const message = JSON.parse(line);
  if (message.hello) say({ hello: { protocol: 1, name: "billing", at_once: 16 } });
  else if (message.event) handle(message);
  else if (message.cancel) running.get(message.cancel)?.abort(message.reason);
  else if (message.ping) say({ pong: message.ping });
  else if (message.drain) draining = true;
  if (draining && running.size === 0) process.exit(0);
}
process.exit(0); // the worker is gone
