"""The soak's server on standard input and output. Once in a while it ends for no reason."""

import json
import os
import random
import sys
import threading

import behaviour

lock = threading.Lock()


def send(text: str):
    with lock:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def serve(message: dict):
    try:
        for out in behaviour.answer(message):
            send(json.dumps(out))
        if message.get("method") == "tools/call" and random.random() < 0.002:
            os._exit(3)
    except behaviour.Hang:
        pass
    except behaviour.Garbage:
        send('{"jsonrpc": "2.0", "id": 424242424242, "result": {}}')
        send("this is no message")
    except behaviour.Die:
        with lock:
            sys.stdout.write('{"jsonrpc": "2.0", "id"')
            sys.stdout.flush()
        os._exit(1)


for line in sys.stdin:
    received = json.loads(line)
    if (received.get("params") or {}).get("name") in ("slow", "stream"):
        threading.Thread(target=serve, args=(received,), daemon=True).start()
    else:
        serve(received)
