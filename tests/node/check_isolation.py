"""Nobody can go around the gateway: what the operator says of it is what is so."""

import socket
import unittest

import harness
from harness import AGENTS

PORT = 8000
OPEN = """
apiVersion: toolgate.dev/v1alpha1
kind: McpServer
metadata: {name: open}
spec:
  source:
    container:
      image: localhost/mcp-everything:1.8.0
      transport: StreamableHttp
      args: ["-http", "%s:8000"]
      port: 8000
      resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
---
apiVersion: toolgate.dev/v1alpha1
kind: McpTool
metadata: {name: open-greet}
spec:
  serverRef: {name: open}
  toolName: greet
  description: Greets whoever is named.
  annotations: {readOnly: true, openWorld: false}
"""


def answers(address, port):
    """Whether anything answers there."""
    try:
        socket.create_connection((address, port), 5).close()
    except OSError:
        return False
    return True


class Isolation(unittest.TestCase):
    """Nobody can go around the gateway."""

    @classmethod
    def setUpClass(cls):
        harness.quickstart()

    def tearDown(self):
        harness.kubectl("-n", AGENTS, "delete", "mcpserver/open", "mcptool/open-greet", "--ignore-not-found")

    def test_a_server_on_localhost_is_isolated(self):
        for server in ("memory", "everything"):
            self.assertEqual(harness.condition("mcpserver", server, "Isolated")["status"], "True", server)
        for address in harness.addresses("everything"):
            self.assertFalse(answers(address, PORT), address)
            self.assertTrue(answers(address, 8443), address)

    def test_a_server_on_the_pods_address_is_not_isolated_and_not_ready(self):
        harness.apply(OPEN % "0.0.0.0")
        isolated = harness.wait_condition("mcpserver", "open", "Isolated", "False")
        self.assertEqual(isolated["reason"], "ReachableAroundGateway")
        # Everything else is as it should be: that it can be reached is the one thing in the way.
        for of in ("Accepted", "Available", "Programmed", "Discovered"):
            harness.wait_condition("mcpserver", "open", of)
        self.assertEqual(harness.wait_condition("mcpserver", "open", "Ready", "False")["reason"], isolated["reason"])
        self.assertTrue(all(answers(address, PORT) for address in harness.addresses("open")))
        # The same server behind its gateway alone.
        harness.apply(OPEN % "127.0.0.1")
        harness.wait_condition("mcpserver", "open", "Isolated")
        harness.wait_condition("mcpserver", "open", "Ready")


