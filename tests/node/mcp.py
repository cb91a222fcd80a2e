"""An MCP client for the tests: calls of a ServiceAccount at a server of the cluster, once or steadily. Knows no
expectation. It connects by address, so that a test can ask each gateway by itself, and verifies the gateway's
certificate under the name of the Service."""

import dataclasses
import http.client
import json
import socket
import ssl
import threading
import time

import harness

PORT = 8443
PATIENCE_SECONDS = 10
REVISION = "2025-11-25"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a request was answered with: the HTTP status, and the JSON-RPC message, if any."""

    status: int
    message: dict

    @property
    def result(self):
        return self.message.get("result")

    @property
    def error(self):
        return self.message.get("error")

    @property
    def allowed(self):
        """The server answered, and had no complaint."""
        return self.status == 200 and self.result is not None and not self.result.get("isError")

    @property
    def unknown(self):
        """The gateway answered as for a tool that does not exist."""
        return self.error is not None and self.error["code"] == -32602 and "unknown tool" in self.error["message"]


class Client:
    """A caller with one connection and one session. `address`: of a pod; else of the Service. `verify=False` takes any
    certificate."""

    def __init__(self, who, server, namespace=harness.AGENTS, address=None, verify=True):
        self.host = f"{server}.{namespace}.svc"
        url = f"https://{self.host}:{PORT}/mcp"
        self.token = harness.kubectl("-n", namespace, "create", "token", who, "--audience", url).strip()
        authority = harness.get("configmap", "toolgate-ca", namespace)["data"]["ca.crt"]
        self.tls = ssl.create_default_context(cadata=authority)
        if not verify:
            self.tls.check_hostname = False
            self.tls.verify_mode = ssl.CERT_NONE
        self.address = address or harness.get("service", server, namespace)["spec"]["clusterIP"]
        self.connection = self.session = None
        self.numbers = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def connect(self):
        """Connects anew and begins a session."""
        self.drop()
        self.dial()
        client = {"protocolVersion": REVISION, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        begun = self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client})
        if begun.result is None:
            raise ConnectionError(f"initialize: {begun}")
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def dial(self):
        """Connects; the session stays what it is."""
        plain = socket.create_connection((self.address, PORT), PATIENCE_SECONDS)
        self.connection = http.client.HTTPConnection(self.host, PORT)
        self.connection.auto_open = 0
        self.connection.sock = self.tls.wrap_socket(plain, server_hostname=self.host)

    def send(self, message):
        """One HTTP request, and its answer once that has begun."""
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": REVISION,
        }
        if self.session:
            headers["Mcp-Session-Id"] = self.session
        self.connection.request("POST", "/mcp", json.dumps(message), headers)
        return self.connection.getresponse()

    def post(self, message):
        """One HTTP request, and its whole answer."""
        response = self.send(message)
        body = response.read().decode()
        self.session = response.headers.get("Mcp-Session-Id") or self.session
        lines = [line.removeprefix("data:").strip() for line in body.splitlines()]
        messages = [json.loads(line) for line in lines if line.startswith("{")]
        answers = [one for one in messages if one.get("id") == message.get("id")] or messages[-1:]
        return Answer(response.status, answers[-1] if answers else {})

    def request(self, method, params):
        """One request, in the session that there is, or in a new one."""
        self.numbers += 1
        try:
            if self.connection is None:
                self.connect()
            return self.post({"jsonrpc": "2.0", "id": self.numbers, "method": method, "params": params})
        except (OSError, http.client.HTTPException, ValueError):
            self.drop()
            raise

    def call(self, tool, **arguments):
        """Calls a tool."""
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    def tools(self):
        """The names of the tools that the caller sees."""
        return sorted(tool["name"] for tool in self.request("tools/list", {}).result["tools"])

    def drop(self):
        """Forgets connection and session."""
        if self.connection is not None:
            self.connection.close()
        self.connection = self.session = None

    def close(self):
        """Ends the session, since a caller may have only so many, and the connection."""
        if self.connection is not None and self.session:
            try:
                headers = {"Authorization": f"Bearer {self.token}", "Mcp-Session-Id": self.session}
                self.connection.request("DELETE", "/mcp", headers=headers)
                self.connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                pass  # the gateway may be gone, and the session with it
        self.drop()


class Traffic:
    """Calls at a steady rate until the end of the `with`. `calls`: (client, tool, arguments), each with a client of its
    own; `rate`: calls per second of all together. What was not allowed is in `failures`, as (seconds since the begin,
    client, what happened)."""

    def __init__(self, calls, rate=20):
        self.targets, self.pause = calls, len(calls) / rate
        self.done, self.failures, self.slowest = 0, [], 0.0
        self.lock, self.end = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.loop, args=target, daemon=True) for target in calls]

    def __enter__(self):
        self.begun = time.monotonic()
        for thread in self.threads:
            thread.start()
        # What follows is to happen while calls are under way.
        self.goes_on()
        return self

    def __exit__(self, *_):
        self.end.set()
        for thread in self.threads:
            thread.join(PATIENCE_SECONDS * 3)
        for client, *_ in self.targets:
            client.close()

    def goes_on(self, calls=20):
        """Waits for further calls."""
        wanted = self.done + calls
        harness.wait("further calls", lambda: self.done >= wanted)

    def summary(self):
        """One line about what was seen."""
        return f"{self.done} calls, {len(self.failures)} failed, the slowest took {self.slowest * 1000:.0f} ms"

    def loop(self, client, tool, arguments):
        due = time.monotonic()
        while not self.end.wait(max(0.0, due - time.monotonic())):
            begun = time.monotonic()
            try:
                answer = client.call(tool, **arguments)
                problem = None if answer.allowed else answer
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = repr(error)
            took = time.monotonic() - begun
            with self.lock:
                self.done += 1
                self.slowest = max(self.slowest, took)
                if problem is not None:
                    self.failures.append((round(begun - self.begun, 2), f"{client.host} {client.address}", problem))
            # One that was late is not made up for by a burst.
            due = max(due + self.pause, time.monotonic())
