"""The soak's server over Streamable HTTP: `http_server.py PORT`. Its sessions die with it."""

import http.server
import json
import secrets
import sys
import time

import behaviour

SESSIONS: set[str] = set()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status: int, body: bytes = b"", content_type: str = "application/json", headers: dict | None = None):
        self.send_response(status)
        if body:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(405)

    def do_DELETE(self):
        SESSIONS.discard(self.headers.get("Mcp-Session-Id", ""))
        self.answer(200)

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        session = self.headers.get("Mcp-Session-Id")
        if session is not None and session not in SESSIONS:
            return self.answer(404)
        if "id" not in message or "method" not in message:
            return self.answer(202)
        opened = {}
        if message["method"] == "initialize":
            opened = {"Mcp-Session-Id": secrets.token_hex(16)}
            SESSIONS.add(opened["Mcp-Session-Id"])
        try:
            answers = list(behaviour.answer(message))
        except behaviour.Hang:
            self.close_connection = True
            return time.sleep(2)
        except behaviour.Garbage:
            return self.answer(200, b'{"jsonrpc": "2.0", "resu')
        except behaviour.Die:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"jsonrpc": "2.0"')
            self.close_connection = True
            return None
        if len(answers) == 1:
            return self.answer(200, json.dumps(answers[0]).encode(), headers=opened)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for out in answers:
            event = f"event: message\ndata: {json.dumps(out)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            time.sleep(0.005)
        self.wfile.write(b"0\r\n\r\n")
        return None


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass  # A client that went away.


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
