// Publishes events that streamhand workers read, by node-redis: now, once, later, and to a partitioned topic.
//
// Copy what you need. What an entry must have, and why, is in docs/wire.md; conformance/ has what to try this by:
//
//   npm ci
//   node node_redis.mjs redis://127.0.0.1:6379 orders     publishes four events to a stream or a topic
//   node node_redis.mjs check conformance                 compares this file with the vectors in that folder

import assert from "node:assert/strict";
import { createHash, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// Scripts as streamhand loads them; ship them beside your program.
const script = (name) => {
  const text = readFileSync(new URL(`../../../conformance/scripts/${name}.lua`, import.meta.url), "utf8");
  return { text, sha1: createHash("sha1").update(text).digest("hex") };
};
const IDENTITY = Buffer.from("0811d2b09371559caed3d939036012fc", "hex");

class Publisher {
  layouts = new Map();
  once = script("publish_once");
  schedule = script("schedule");

  constructor(redis, source) {
    this.redis = redis;
    this.source = source;
  }

  /** Publishes an event. Again with the same id it is a copy of it. */
  async publish(stream, type, data, { subject = "", id } = {}) {
    const fields = this.fields(type, data, subject, id);
    return this.redis.xAdd(await this.streamOf(stream, subject || fields.id), "*", fields);
  }

  /** Publishes an event unless one of this id, type and source was within so many seconds. Whether it is new. */
  async publishOnce(stream, type, data, id, { subject = "", window = 24 * 60 * 60 } = {}) {
    const fields = this.fields(type, data, subject, id);
    stream = await this.streamOf(stream, subject || id);
    const mark = `${tagged(stream)}:published:${which(this.source, id, type)}`;
    const keys = [stream, mark, `${tagged(stream)}:never`];
    const args = [String(window * 1000), says(fields.data), "0", ...Object.entries(fields).flat()];
    const [, isNew, isOther] = await this.call(this.once, keys, args);
    if (isOther) throw new Error(`the event ${id} was published before with other data`);
    return isNew === 1;
  }

  /** Publishes an event so many seconds later, by the clock of Redis. Its id, by which it is cancelled. */
  async publishLater(stream, type, data, delay, { subject = "", id } = {}) {
    const fields = this.fields(type, data, subject, id);
    stream = await this.streamOf(stream, subject || fields.id);
    const tag = tagged(stream);
    const keys = [stream, `${tag}:scheduled`, `${tag}:scheduled:events`, `${tag}:never`];
    const args = [fields.id, which(this.source, fields.id, type), "", String(delay * 1000), "0"];
    await this.call(this.schedule, keys, [...args, ...Object.entries(fields).flat()]);
    return fields.id;
  }

  async call({ text, sha1 }, keys, args) {
    try {
      return await this.redis.evalSha(sha1, { keys, arguments: args });
    } catch (error) {
      if (!error.message.startsWith("NOSCRIPT")) throw error;
      return this.redis.eval(text, { keys, arguments: args });
    }
  }

  fields(type, data, subject, id) {
    const fields = {
      type,
      id: id ?? randomUUID(),
      source: this.source,
      time: new Date().toISOString(),
      data: JSON.stringify(data),
    };
    return subject ? { ...fields, subject } : fields;
  }

  /** The stream itself, or that of the event's partition. */
  async streamOf(stream, address) {
    if (!this.layouts.has(stream)) {
      const layout = await this.redis.hGetAll(`{${stream}}:partitions`);
      const generations = Object.keys(layout).filter((field) => /^\d+$/.test(field)).map(Number);
      const last = Math.max(0, ...generations);
      this.layouts.set(stream, last && { generation: last, partitions: BigInt(layout[last]) });
    }
    const layout = this.layouts.get(stream);
    if (!layout) return stream;
    const number = fnv1a64(address) % layout.partitions;
    return layout.generation === 1 ? `{${stream}:${number}}` : `{${stream}:${layout.generation}.${number}}`;
  }
}

function fnv1a64(text) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(text)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash;
}

const tagged = (stream) => (stream.includes("{") ? stream : `{${stream}}`);

/** Which event it is, as streamhand has it. */
function which(source, id, type) {
  return uuid5(Buffer.concat([source, id, type].map((part) => put("s", Buffer.from(part))))).toString("hex");
}

/** A hash of what JSON says. Of numbers beyond 2^53 and of floats such as 1.0 JavaScript knows too little: it writes none. */
function says(data, version = 1) {
  const versioned = Buffer.alloc(4);
  versioned.writeUInt32BE(version);
  const hash = uuid5(Buffer.concat([versioned, said(JSON.parse(data))]));
  return Buffer.concat([hash.subarray(0, 6), hash.subarray(10, 12)]).toString("hex");
}

function said(value) {
  if (value === null || typeof value === "boolean") return Buffer.from({ null: "n", true: "t", false: "f" }[value]);
  if (typeof value === "string") return put("s", Buffer.from(value));
  if (typeof value === "number") {
    const bytes = Buffer.alloc(16);
    if (!Number.isSafeInteger(value)) return put("d", bytes.subarray(0, bytes.writeDoubleBE(value)));
    bytes.writeBigInt64BE(value < 0 ? -1n : 0n);
    bytes.writeBigInt64BE(BigInt(value), 8);
    return put("i", bytes);
  }
  if (Array.isArray(value)) return Buffer.concat([Buffer.from("["), ...value.map(said), Buffer.from("]")]);
  const members = Object.entries(value).map(([name, member]) => Buffer.concat([said(name), said(member)]));
  return Buffer.concat([Buffer.from("{"), ...members.sort(Buffer.compare), Buffer.from("}")]);
}

function put(kind, bytes) {
  const length = Buffer.alloc(8);
  length.writeBigUInt64BE(BigInt(bytes.length));
  return Buffer.concat([Buffer.from(kind), length, bytes]);
}

function uuid5(name) {
  const hash = createHash("sha1").update(IDENTITY).update(name).digest().subarray(0, 16);
  hash[6] = (hash[6] & 0x0f) | 0x50;
  hash[8] = (hash[8] & 0x3f) | 0x80;
  return hash;
}

/** Compares this with the vectors that streamhand publishes. */
function check(folder) {
  const vectors = (name) => JSON.parse(readFileSync(`${folder}/${name}`, "utf8"));
  for (const { address, fnv1a64: hash } of vectors("partition.json").hashes) {
    assert.equal(fnv1a64(address).toString(16).padStart(16, "0"), hash, address);
  }
  for (const event of vectors("identity.json").events) {
    const { source = "", id, type, data, schemaversion = "1" } = Object.fromEntries(event.fields);
    assert.equal(which(source, id, type), event.which);
    // What JSON.stringify would write otherwise this does not publish.
    const isWritten = (text) => JSON.stringify(JSON.parse(text)) === text.replaceAll(" ", "");
    let isOurs = false;
    try { isOurs = typeof data === "string" && isWritten(data); } catch { /* no JSON */ }
    if (isOurs) assert.equal(says(data, Number(schemaversion)), event.says, data);
  }
}

async function main(url, stream) {
  const { createClient } = await client();
  const redis = await createClient({ url }).connect();
  const publisher = new Publisher(redis, "shop");
  const order = (id) => ({ order_id: id, amount: 3 });
  await publisher.publish(stream, "order.created", order("o-1"), { subject: "order:o-1", id: "o-1-created" });
  for (const isNew of [true, false]) {
    const once = publisher.publishOnce(stream, "order.created", order("o-2"), "o-2-created", { subject: "order:o-2" });
    assert.equal(await once, isNew);
  }
  const later = { subject: "order:o-3", id: "o-3-created" };
  await publisher.publishLater(stream, "order.created", order("o-3"), 0.5, later);
  await publisher.publish(stream, "order.created", order("o-4: créée"));
  redis.destroy();
}

/** The client beside this file, or in the folder that NODE_REDIS names. */
async function client() {
  const folder = process.env.NODE_REDIS;
  if (!folder) return import("redis");
  return import(pathToFileURL(createRequire(`${folder}/`).resolve("redis")));
}

const [first, second] = process.argv.slice(2);
if (first === "check") check(second);
else await main(first, second);
