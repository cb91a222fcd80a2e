"""What the soak's servers do, whatever their transport: some tools answer, the others misbehave.

Every `tools/call` that reaches a server is noted in the journal with its nonce: a call that policy forbids must never
be found there.
"""

import json
import os
import random
import time

TOOLS = ["echo", "read", "write", "slow", "stream", "die", "hang", "garbage"]
SLOW_SECONDS = 0.1
JOURNAL = os.environ.get("SOAK_JOURNAL")


class Die(Exception):
    """The server ends, or breaks the connection, in the middle of its answer."""


class Hang(Exception):
    """The server never answers."""


class Garbage(Exception):
    """The server answers what is no JSON-RPC."""


def note(nonce: str):
    if JOURNAL:
        journal = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(journal, f"{nonce}\n".encode())  # One write is one line, whoever else writes.
        os.close(journal)


def answer(message: dict):
    """Yields the messages that answer one message: notifications first."""
    method, params, identifier = message.get("method"), message.get("params") or {}, message.get("id")
    if identifier is None or method is None:
        return

    def result(value: dict) -> dict:
        return {"jsonrpc": "2.0", "id": identifier, "result": value}

    if method == "initialize":
        about = {"name": "soak", "version": "1"}
        yield result({"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": about})
    elif method == "ping":
        yield result({})
    elif method == "tools/list":
        schema = {"type": "object"}
        yield result({"tools": [{"name": name, "description": name, "inputSchema": schema} for name in TOOLS]})
    elif method == "tools/call":
        name, arguments = params["name"], params.get("arguments") or {}
        note(arguments.get("nonce", "?"))
        if name == "die":
            raise Die
        if name == "hang":
            raise Hang
        if name == "garbage":
            raise Garbage
        if name == "slow":
            time.sleep(SLOW_SECONDS * random.random())
        token = (params.get("_meta") or {}).get("progressToken")
        if name == "stream" and token is not None:
            for step in range(3):
                about = {"progressToken": token, "progress": step, "total": 3}
                yield {"jsonrpc": "2.0", "method": "notifications/progress", "params": about}
        text = json.dumps(arguments, sort_keys=True)
        yield result({"content": [{"type": "text", "text": text}], "isError": False})
    else:
        yield {"jsonrpc": "2.0", "id": identifier, "error": {"code": -32601, "message": f"method not found: {method}"}}
