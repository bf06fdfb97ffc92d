"""Handles events in Python over HTTP, and checks that they come from the worker: python3 service.py
Python 3.9 or later, and nothing else. In config.toml; SECRET in the environment is what stands in webhook.secret:

    [targets.billing]
    url = "http://127.0.0.1:8080/events"
    allow = ["127.0.0.1"]               # an address of this machine
    secret_files = ["webhook.secret"]   # echo "whsec_$(openssl rand -base64 32)" > webhook.secret
"""

import base64
import hmac
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ.get("SECRET", "")


def order_created(order):
    """What it returns is done together with the event's acknowledgement, or not at all."""
    if order["amount"] <= 0:
        return {"permanent": "there is nothing to charge"}
    return {"emit": [{"stream": "payments", "type": "payment.requested", "data": order}]}


HANDLERS = {"order.created": order_created}


def is_genuine(headers, body):
    stamp = headers.get("webhook-timestamp", "0")
    is_recent = abs(time.time() - int(stamp)) < 300
    signed = f"{headers.get('webhook-id')}.{stamp}.".encode() + body
    key = base64.b64decode(SECRET.strip().replace("whsec_", "", 1))
    right = "v1," + base64.b64encode(hmac.new(key, signed, "sha256").digest()).decode()
    return is_recent and any(hmac.compare_digest(right, given) for given in headers.get("webhook-signature", "").split())


class Events(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if SECRET and not is_genuine(self.headers, body):
            return self.reply(401, {"error": "the signature is wrong"})
        handler = HANDLERS.get(self.headers.get("ce-type"))
        if not handler:
            return self.reply(422, {"error": "nobody handles this type"})
        self.reply(200, handler(json.loads(body)))

    def reply(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Events).serve_forever()
