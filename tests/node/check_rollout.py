"""A server's pods are replaced one after the other, and no caller loses a call that is safe to repeat.

Callers are what HTTP clients are: they keep a connection, open another where it was closed, and repeat a request where the
connection was closed before any answer began. A client with a session begins a new one where its session is not known any
more (404), as MCP says. Everything else that is not the answer is a failure: a refused call, an error of the gateway, an
answer that breaks off."""

import http.client
import ssl
import time
import unittest

import harness
import mcp
from harness import AGENTS

RATE = 50
ATTEMPTS = 4  # One for each pod that there is during the rollout, and one more.


class Caller(mcp.Client):
    """A client with a session, that repeats what may be repeated."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.repeated = self.sessions = 0

    def connect(self):
        self.sessions += 1
        super().connect()

    def send(self, message):
        for attempt in range(ATTEMPTS):
            try:
                if self.connection is None or self.connection.sock is None:
                    self.dial()
                return super().send(message)
            except (ConnectionError, ssl.SSLEOFError, http.client.NotConnected):
                # Nothing of an answer was there.
                self.repeated += 1
                self.connection.close()
                if attempt == ATTEMPTS - 1:
                    raise

    def request(self, method, params):
        answer = super().request(method, params)
        if answer.status == 404 and self.session:
            self.drop()
            answer = super().request(method, params)
        return answer

    def call(self, tool, **arguments):
        return self.request("tools/list", {}) if tool == "tools/list" else super().call(tool, **arguments)


class Rollout(unittest.TestCase):
    """No call is lost while pods are replaced."""

    @classmethod
    def setUpClass(cls):
        harness.quickstart()

    def test_nobody_but_the_gateways_own_container_can_take_it_out_of_service(self):
        for pod in harness.pods("everything"):
            connection = http.client.HTTPConnection(pod["status"]["podIP"], 9901, timeout=10)
            for method in ("GET", "POST"):
                connection.request(method, "/drain")
                response = connection.getresponse()
                response.read()
                self.assertEqual(response.status, 404)
            connection.request("GET", "/readyz")
            self.assertEqual(connection.getresponse().status, 200)

    def roll(self, server, calls):
        """Replaces all pods of a server while calls go on, until the last old one is gone."""
        old = {pod["metadata"]["uid"] for pod in harness.pods(server)}
        callers = [caller for caller, *_ in calls]
        with mcp.Traffic(calls, RATE) as traffic:
            begun = time.monotonic()
            change = {"metadata": {"annotations": {"example.com/restarted": str(time.time())}}}
            harness.patch("mcpserver", server, {"spec": {"podTemplate": change}})
            self.addCleanup(harness.kubectl, "-n", AGENTS, "rollout", "status", f"deployment/{server}", "--timeout=120s")
            self.addCleanup(harness.wait_condition, "mcpserver", server, "Available")
            self.addCleanup(harness.patch, "mcpserver", server, {"spec": {"podTemplate": None}})

            def replaced():
                there = harness.get("pod", selector=f"toolgate.dev/server={server}")
                uids = {pod["metadata"]["uid"] for pod in there}
                return not uids & old and len(uids) == len(old) and all(map(harness.ready, there))

            harness.wait("every pod is replaced, and the old ones are gone", replaced, seconds=240, every=0.5)
            took = time.monotonic() - begun
            traffic.goes_on(RATE)
        harness.note(
            f"{server}: replaced in {took:.0f} s; {traffic.summary()}; {sum(one.repeated for one in callers)} repeated "
            f"after a closed connection, {sum(one.sessions for one in callers) - len(callers)} new sessions"
        )
        self.assertEqual(traffic.failures, [])
        self.assertGreater(traffic.done, took * RATE * 0.8)
        # The callers were in those pods: all of them had to go elsewhere.
        self.assertTrue(all(one.sessions > 1 for one in callers))

    def test_a_rolling_restart_of_two_replicas_loses_no_call_at_fifty_a_second(self):
        self.assertEqual(len(harness.addresses("everything")), 2)
        calls = [(Caller("ada", "everything"), "tools/list", {}) for _ in range(4)]
        calls += [(Caller("guest", "everything"), "greet", {"name": "you"}) for _ in range(4)]
        self.roll("everything", calls)
