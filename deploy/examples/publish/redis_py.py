"""Publishes events that streamhand workers read, by redis-py: now, once, later, and to a partitioned topic.

Copy what you need. What an entry must have, and why, is in docs/wire.md; conformance/ has what to try this by:

    python3 redis_py.py redis://127.0.0.1:6379 orders     publishes four events to a stream or a topic
    python3 redis_py.py check conformance                  compares this file with the vectors in that folder
"""

import datetime
import hashlib
import json
import pathlib
import struct
import sys
import uuid

# Scripts as streamhand loads them; ship them beside your program.
SCRIPTS = pathlib.Path(__file__).resolve().parents[3] / "conformance" / "scripts"
IDENTITY = uuid.UUID("0811d2b0-9371-559c-aed3-d939036012fc")


class Publisher:
    def __init__(self, redis, source):
        self.redis = redis
        self.source = source
        self.layouts = {}
        self.once_script = redis.register_script((SCRIPTS / "publish_once.lua").read_text())
        self.schedule_script = redis.register_script((SCRIPTS / "schedule.lua").read_text())

    def publish(self, stream, type, data, subject="", id=None):
        """Publishes an event. Again with the same id it is a copy of it."""
        fields = self.fields(type, data, subject, id)
        stream = self.stream_of(stream, subject or fields["id"])
        return self.redis.xadd(stream, fields)

    def publish_once(self, stream, type, data, id, subject="", window=24 * 60 * 60):
        """Publishes an event unless one of this id, type and source was within so many seconds. Whether it is new."""
        fields = self.fields(type, data, subject, id)
        stream = self.stream_of(stream, subject or id)
        mark = f"{tagged(stream)}:published:{which(self.source, id, type)}"
        keys = [stream, mark, f"{tagged(stream)}:never"]
        args = [int(window * 1000), says(fields["data"]), 0, *flat(fields)]
        _, is_new, is_other, _ = self.once_script(keys=keys, args=args)
        if is_other:
            raise ValueError(f"the event {id} was published before with other data")
        return bool(is_new)

    def publish_later(self, stream, type, data, delay, subject="", id=None):
        """Publishes an event so many seconds later, by the clock of Redis. Its id, by which it is cancelled."""
        fields = self.fields(type, data, subject, id)
        stream = self.stream_of(stream, subject or fields["id"])
        tag = tagged(stream)
        keys = [stream, f"{tag}:scheduled", f"{tag}:scheduled:events", f"{tag}:never"]
        identity = which(self.source, fields["id"], type)
        self.schedule_script(keys=keys, args=[fields["id"], identity, "", int(delay * 1000), 0, *flat(fields)])
        return fields["id"]

    def fields(self, type, data, subject, id):
        fields = {
            "type": type,
            "id": id or str(uuid.uuid4()),
            "source": self.source,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(),
            "data": json.dumps(data, allow_nan=False),
        }
        if subject:
            fields["subject"] = subject
        return fields

    def stream_of(self, stream, address):
        """The stream itself, or that of the event's partition."""
        if stream not in self.layouts:
            layout = self.redis.hgetall(f"{{{stream}}}:partitions")
            layout = {int(generation): int(many) for generation, many in layout.items() if generation.isdigit()}
            self.layouts[stream] = max(layout.items(), default=None)
        if self.layouts[stream] is None:
            return stream
        generation, partitions = self.layouts[stream]
        number = fnv1a64(address.encode()) % partitions
        return f"{{{stream}:{number}}}" if generation == 1 else f"{{{stream}:{generation}.{number}}}"


def fnv1a64(data):
    hash = 0xCBF29CE484222325
    for byte in data:
        hash = ((hash ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return hash


def tagged(stream):
    return stream if "{" in stream else f"{{{stream}}}"


def flat(fields):
    return [text for field in fields.items() for text in field]


def which(source, id, type):
    """Which event it is, as streamhand has it."""
    return uuid5(b"".join(put(b"s", part.encode()) for part in (source, id, type))).hex


def says(data, version=1):
    """A hash of what JSON says."""
    hash = uuid5(version.to_bytes(4, "big") + said(json.loads(data))).bytes
    return (hash[:6] + hash[10:12]).hex()


def said(value):
    if value is None or isinstance(value, bool):
        return {None: b"n", True: b"t", False: b"f"}[value]
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return put(b"i", value.to_bytes(16, "big", signed=True))
    if isinstance(value, (int, float)):
        return put(b"d", struct.pack(">d", value))
    if isinstance(value, str):
        return put(b"s", value.encode())
    if isinstance(value, list):
        return b"[" + b"".join(map(said, value)) + b"]"
    return b"{" + b"".join(sorted(said(name) + said(member) for name, member in value.items())) + b"}"


def put(kind, data):
    return kind + len(data).to_bytes(8, "big") + data


def uuid5(name):
    return uuid.UUID(bytes=hashlib.sha1(IDENTITY.bytes + name).digest()[:16], version=5)


def check(folder):
    """Compares this with the vectors that streamhand publishes."""
    vectors = lambda name: json.loads((pathlib.Path(folder) / name).read_text())
    for hash in vectors("partition.json")["hashes"]:
        assert f"{fnv1a64(hash['address'].encode()):016x}" == hash["fnv1a64"], hash
    for event in vectors("identity.json")["events"]:
        fields = dict(event["fields"])
        identity = which(fields.get("source", ""), fields["id"], fields["type"])
        assert identity == event["which"], event
        try:
            hash = says(fields["data"], int(fields.get("schemaversion", 1)))
        except (TypeError, json.JSONDecodeError):
            continue  # MessagePack, or no JSON: this publishes neither
        assert hash == event["says"], event


def main(url, stream):
    import redis

    # Redis is asked again if it does not answer; with the same id that does no harm.
    publisher = Publisher(redis.Redis.from_url(url, decode_responses=True), source="shop")
    order = lambda id: {"order_id": id, "amount": 3}
    publisher.publish(stream, "order.created", order("o-1"), subject="order:o-1", id="o-1-created")
    for is_new in (True, False):
        assert publisher.publish_once(stream, "order.created", order("o-2"), "o-2-created", "order:o-2") == is_new
    publisher.publish_later(stream, "order.created", order("o-3"), 0.5, "order:o-3", "o-3-created")
    publisher.publish(stream, "order.created", order("o-4: créée"))


if __name__ == "__main__":
    if sys.argv[1] == "check":
        check(sys.argv[2])
    else:
        main(*sys.argv[1:])
