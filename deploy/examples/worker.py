"""Handles events in Python: reads them from descriptor 3, and answers on descriptor 4.

Python 3.9 or later, and nothing else. What is printed goes to the worker's log. In config.toml:
    [targets.billing]
    command = ["python3", "worker.py"]

    [handlers."order.created"]
    target = "billing"
"""

import json
import os
import traceback


def order_created(order, event):
    """What it returns is done together with the event's acknowledgement, or not at all."""
    if order["amount"] <= 0:
        return {"permanent": "there is nothing to charge"}
    print("charging", order["order_id"])
    return {
        "emit": [{"stream": "payments", "type": "payment.requested", "data": order}],
        "effects": [{"effect": "incr_by", "key": "{orders}:charged", "by": order["amount"]}],
    }


HANDLERS = {"order.created": order_created}


def answer(request):
    event = request["event"]
    try:
        return HANDLERS[event["type"]](event.get("data"), event) or {}
    except Exception as error:  # it is tried again, and in the end a dead letter
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    os.set_inheritable(3, False)
    os.set_inheritable(4, False)
    requests, answers = open(3, encoding="utf-8"), open(4, "w", encoding="utf-8")

    def say(message):
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    for line in requests:  # ends when the worker is gone
        message = json.loads(line)
        if "hello" in message:
            say({"hello": {"protocol": 1, "name": "billing"}})
        elif "event" in message:
            say({"id": message["id"], "answer": answer(message)})
        elif "ping" in message:
            say({"pong": message["ping"]})
        elif "drain" in message:
            break


main()
