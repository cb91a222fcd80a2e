"""A tiny MCP server over stdio that behaves, or misbehaves, as a test asks.

Flags (arguments) say how it starts, tool names say what it does. Speaks 2025-11-25; with `modern` also 2026-07-28.
"""
import json
import os
import subprocess
import sys
import time

FLAGS = sys.argv[1:]
cancelled, held, answers, said = [], [], [], []


def write(text):
    sys.stdout.write(text)
    sys.stdout.flush()


def send(**message):
    write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")


def note(method, **params):
    send(method=method, params=params)


def call(message, line):
    params = message.get("params", {})
    meta = params.get("_meta", {})
    name, arguments, identity = params["name"], params.get("arguments", {}), message["id"]

    def answer(result):
        send(id=identity, result=result)

    match name:
        case "echo":
            answer({"line": line.rstrip("\n"), "pid": os.getpid()})
        case "env":
            answer({"env": dict(os.environ), "directory": os.getcwd()})
        case "die":
            write('{"jsonrpc":"2.0","id":' + json.dumps(identity) + ',"result":{"half')
            sys.exit(3)
        case "exit":
            answer({})
            sys.exit(arguments.get("status", 0))
        case "never":
            pass
        case "hold":
            held.append(identity)
        case "release":
            for other in held:
                send(id=other, result={"held": True})
            held.clear()
            answer({})
        case "odd":
            write("starting up\n{\"jsonrpc\":\"2.0\"\n")
            sys.stdout.buffer.write(b"\xff\xfe\n[]\n\n")
            send(id=999999, result={"for": "nobody"})
            send(id="x", result={})
            answer({"odd": True})
        case "large":
            answer({"text": "x" * arguments["bytes"]})
        case "notes":
            note("notifications/progress", progressToken=meta.get("progressToken"), progress=1)
            note("notifications/message", level="info", data="working")
            answer({"notes": True})
        case "ask":
            send(id="q1", method="elicitation/create", params={"message": arguments.get("message", "?")})
            while True:
                reply = json.loads(sys.stdin.readline())
                if "method" not in reply:
                    answer({"answered": reply})
                    return
                if reply["method"] == "tools/call":
                    call(reply, "")
        case "change":
            note("notifications/tools/list_changed")
            note("notifications/resources/updated", uri="file:///watched")
            answer({})
        case "seen":
            answer({"cancelled": cancelled, "answers": answers, "held": held, "said": said})
        case "log":
            for level in ("debug", "info", "warning", "emergency"):
                note("notifications/message", level=level, data="working")
            answer({})
        case "deaf":
            answer({})
            time.sleep(1000)


def main():
    if "exit" in FLAGS:
        print("last words", file=sys.stderr)
        sys.exit(1)
    if "family" in FLAGS:  # A launcher: the one that serves is its child, and a third one ignores its standard input.
        subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
        sys.exit(subprocess.call([sys.executable, __file__, *(flag for flag in FLAGS if flag != "family")]))
    if "stubborn" in FLAGS:
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin:
        message = json.loads(line)
        method = message.get("method")
        if method is None:
            answers.append(message)
        elif "silent" in FLAGS:
            pass
        elif method == "initialize":
            if "refuse" in FLAGS:
                send(id=message["id"], error={"code": -32022, "message": "only 2026-07-28"})
                continue
            capabilities = {"tools": {"listChanged": True}, "extra": 12345678901234567890123}
            info = {"name": "scripted", "version": "1.2.3", "pid": os.getpid(), "asked": message["params"]}
            version = message["params"]["protocolVersion"]
            send(id=message["id"], result={"protocolVersion": version, "capabilities": capabilities, "serverInfo": info})
        elif method == "server/discover" and "modern" in FLAGS:
            result = {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            meta = {"io.modelcontextprotocol/serverInfo": {"name": "scripted", "version": "2.0"}}
            send(id=message["id"], result={**result, "_meta": meta, "ttlMs": 0, "cacheScope": "private"})
        elif method == "server/discover" and "crash" in FLAGS:
            sys.exit(9)
        elif method == "subscriptions/listen":
            meta = {"io.modelcontextprotocol/subscriptionId": message["id"]}
            note("notifications/subscriptions/acknowledged", _meta=meta, notifications={})
            note("notifications/tools/list_changed", _meta=meta)
            send(id=message["id"], result={"resultType": "complete", "_meta": meta})
        elif method in ("resources/subscribe", "resources/unsubscribe", "logging/setLevel"):
            params = message["params"]
            said.append([method.rpartition("/")[2], params.get("uri") or params["level"]])
            if "refused" in (params.get("uri") or ""):
                send(id=message["id"], error={"code": -32002, "message": "no such resource"})
            else:
                send(id=message["id"], result={})
        elif method == "notifications/cancelled":
            cancelled.append(message["params"]["requestId"])
        elif method == "tools/list":
            page = 0 if (cursor := message.get("params", {}).get("cursor")) is None else int(cursor or 1)
            names = [["echo", "env"], ["die"], ["never"]]
            tools = [{"name": name, "description": f"does {name}", "inputSchema": {}} for name in names[page]]
            following = {"nextCursor": ["", "2"][page]} if page < 2 else {}
            send(id=message["id"], result={"tools": tools, **following})
        elif method == "tools/call":
            call(message, line)
        elif "id" in message:
            send(id=message["id"], error={"code": -32601, "message": f"no {method}"})
    if "stubborn" in FLAGS:
        time.sleep(1000)


main()
