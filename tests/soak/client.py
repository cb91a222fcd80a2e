"""A small MCP client over HTTP, as far as the soak speaks it, and what an answer amounts to."""

import http.client
import json
import socket

DENIED = -31001
UNKNOWN = -32602
# The server or the gateway could not: says nothing about policy.
UNDECIDED = {-31002: "limited", -31003: "unavailable", -31004: "timeout", -31005: "not ready", -31006: "session",
             -31010: "refused by the server"}


class Client:
    """One caller at one server. `call` returns (kind, detail); a kind of `closed` or `undecided` decides nothing."""

    def __init__(self, address: tuple, path: str, token: str):
        self.address, self.path, self.token = address, path, token
        self.session = None
        self.connection = None
        self.next_id = 0

    def exchange(self, verb: str, message: dict | None, timeout: float) -> tuple[int, dict, bytes]:
        if self.connection is None:
            self.connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        headers = {"Authorization": f"Bearer {self.token}", "MCP-Protocol-Version": "2025-11-25"}
        if message is not None:
            headers |= {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.session:
            headers["Mcp-Session-Id"] = self.session
        try:
            self.connection.connect() if self.connection.sock is None else None
            self.connection.sock.settimeout(timeout)
            self.connection.request(verb, self.path, None if message is None else json.dumps(message), headers)
            answer = self.connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def request(self, method: str, params: dict, timeout: float = 5) -> tuple[int, dict, dict | None]:
        """Status, headers and the answer to one request; notifications on its stream are dropped."""
        self.next_id += 1
        message = {"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params}
        status, headers, body = self.exchange("POST", message, timeout)
        kind = next((v for k, v in headers.items() if k.lower() == "content-type"), "")
        texts = [body]
        if kind.startswith("text/event-stream"):
            texts = [line[5:] for line in body.replace(b"\r\n", b"\n").split(b"\n") if line.startswith(b"data:")]
        for text in texts:
            if text.strip():
                answer = json.loads(text)
                if "result" in answer or "error" in answer:
                    return status, headers, answer
        return status, headers, None

    def open(self) -> bool:
        """Begins a session; False if the server could not."""
        self.session = None
        about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"}}
        try:
            _, headers, answer = self.request("initialize", about)
            if not answer or "result" not in answer:
                return False
            self.session = next((v for k, v in headers.items() if k.lower() == "mcp-session-id"), None)
            self.exchange("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"}, 5)
        except (OSError, http.client.HTTPException):
            return False
        return True

    def close(self):
        """Ends the session and the connection."""
        try:
            if self.session:
                self.exchange("DELETE", None, 5)
        except (OSError, http.client.HTTPException):
            pass
        self.session = None
        self.disconnect()

    def ask(self, method: str, params: dict, timeout: float = 5) -> tuple[str, object]:
        try:
            status, _, answer = self.request(method, params, timeout)
        except (TimeoutError, socket.timeout):
            return "closed", "timeout"
        except (OSError, http.client.HTTPException) as error:
            return "closed", repr(error)
        if answer is None:
            return ("closed", status) if status == 200 else ("odd", f"status {status} without a message")
        if "result" in answer:
            return "result", answer["result"]
        code, message = answer["error"]["code"], answer["error"]["message"]
        if code in UNDECIDED:
            return "undecided", UNDECIDED[code]
        if code == DENIED and message.startswith("policy allows this caller nothing"):
            return "nothing", message  # It lost every right, and its session's process with them.
        if code == DENIED and status == 403:
            return "scope", message
        if code == DENIED:
            return "denied", message
        if code == UNKNOWN and message.startswith("unknown tool"):
            return "unknown", message
        return "odd", f"status {status}: {answer['error']}"
