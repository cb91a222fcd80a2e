"""What is taken away is gone at every gateway within a second after kubectl returned, and status says so."""

import time
import unittest

import harness
import mcp
from harness import AGENTS

LIMIT_SECONDS = 1.0
BY_LABEL = """
apiVersion: toolgate.dev/v1alpha1
kind: McpRole
metadata: {name: by-label}
spec:
  subjects:
    - {kind: ServiceAccount, name: guest, namespace: agents}
  rules:
    - effect: Allow
      servers: [everything]
      toolSelector: {matchLabels: {for: guests}}
"""
ANNOUNCE = ("announce", {"name": "platform"})
GREET = ("greet", {"name": "you"})


class Revocation(unittest.TestCase):
    """What is taken away is gone at once."""

    def setUp(self):
        harness.quickstart()
        self.addCleanup(harness.kubectl, "apply", "-k", harness.EXAMPLE)

    def clients(self, who):
        """A client for each gateway of `everything`, so that the slowest of them counts."""
        addresses = harness.addresses("everything")
        self.assertEqual(len(addresses), 2)
        clients = [mcp.Client(who, "everything", address=address) for address in addresses]
        for client in clients:
            self.addCleanup(client.close)
        return clients

    def revoked(self, clients, call, *command):
        """Runs kubectl, and holds that no gateway allows the call from a second later on."""
        tool, arguments = call
        for client in clients:
            harness.wait("the call is allowed", lambda client=client: client.call(tool, **arguments).allowed)
        snapshot = harness.enforcement("everything")["snapshot"]
        harness.kubectl("-n", AGENTS, *command)
        returned = time.monotonic()
        last = None
        # Twice the limit, so that a rule that comes back is seen as well.
        while (begun := time.monotonic() - returned) < 2 * LIMIT_SECONDS:
            for client in clients:
                answer = client.call(tool, **arguments)
                if answer.allowed:
                    last = begun
                else:
                    self.assertTrue(answer.unknown, answer)
        when = f"{last * 1000:.0f} ms after" if last else "before"
        harness.note(f"last call that was allowed: {when} kubectl returned")
        self.assertLess(last or 0.0, LIMIT_SECONDS)
        self.assertTrue(all(client.call(tool, **arguments).unknown for client in clients))

        def acknowledged():
            now = harness.enforcement("everything")
            return now["snapshot"] != snapshot and now["ready"] == now["acknowledged"] == 2

        harness.wait("status.enforcement tells of the new policy", acknowledged, seconds=10)
        harness.wait_condition("mcpserver", "everything", "Programmed", seconds=10)

    def test_a_deleted_role_is_gone_at_every_gateway_within_a_second(self):
        self.revoked(self.clients("ada"), ANNOUNCE, "delete", "mcprole", "writer", "--wait=false")

    def test_a_removed_subject_is_out_at_every_gateway_within_a_second(self):
        ada = '{"spec": {"subjects": [{"kind": "ServiceAccount", "name": "ada", "namespace": "agents"}]}}'
        self.revoked(self.clients("guest"), GREET, "patch", "mcprole", "reader", "--type=merge", "--patch", ada)
        # About this generation of the role, not about the one before.
        harness.wait_condition("mcprole", "reader", "Programmed", seconds=10)
        harness.wait_condition("mcprole", "reader", "Ready", seconds=10)

    def test_a_removed_label_counts_at_every_gateway_within_a_second(self):
        self.addCleanup(harness.kubectl, "-n", AGENTS, "label", "mcptool", "everything-greet-structured", "for-")
        self.addCleanup(harness.kubectl, "-n", AGENTS, "delete", "mcprole", "by-label", "--ignore-not-found")
        harness.kubectl("-n", AGENTS, "label", "mcptool", "everything-greet-structured", "for=guests")
        harness.apply(BY_LABEL)
        harness.wait_condition("mcprole", "by-label", "Ready")
        self.revoked(
            self.clients("guest"), ANNOUNCE, "label", "mcptool", "everything-greet-structured", "for-"
        )
        effective = lambda: harness.get("mcprole", "by-label")["status"]["effective"]["tools"]
        harness.wait("the role comes to no tool", lambda: effective() == 0, seconds=10)
