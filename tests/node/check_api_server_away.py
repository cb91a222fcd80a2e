"""The API server is away for a minute: calls go on, nothing restarts, and no condition changes."""

import threading
import unittest

import harness
import mcp
from harness import AGENTS, SYSTEM

AWAY_SECONDS = 60


class ApiServerAway(unittest.TestCase):
    """Who only calls does not notice that the API server is away."""

    def test_calls_go_on_nothing_restarts_and_no_condition_changes(self):
        harness.quickstart()
        harness.wait("two operators are Ready", lambda: sum(map(harness.ready, harness.operators())) == 2)
        harness.wait("one of them leads", harness.leader)
        conditions, lives = harness.conditions(), harness.lives(AGENTS, SYSTEM)
        self.assertTrue(all(status == "True" for (_, _, of), (status, *_) in conditions.items() if of == "Ready"))
        calls = [
            (mcp.Client("ada", "everything", address=address), "greet", {"name": "you"})
            for address in harness.addresses("everything")
        ]
        through_service = [
            (mcp.Client("ada", "everything"), "announce", {"name": "platform"}),
            (mcp.Client("ada", "memory"), "read_graph", {}),
        ]
        renewed = self.renewed()
        with mcp.Traffic([*calls, *through_service]) as traffic:
            harness.component("stop", "kube-apiserver")
            try:
                # The promise is about a time, so this is one; it is not a wait for anything.
                threading.Event().wait(AWAY_SECONDS)
            finally:
                harness.component("start", "kube-apiserver")
            harness.wait("the leader is back", lambda: self.renewed() != renewed)
            # Ten more seconds of calls, in which whatever was missed would be written.
            until = traffic.done + 200
            while traffic.done < until:
                self.assertEqual(harness.conditions(), conditions)
        harness.note(traffic.summary())
        self.assertEqual(traffic.failures, [])
        self.assertGreater(traffic.done, AWAY_SECONDS * 20 * 0.8)
        self.assertEqual(harness.lives(AGENTS, SYSTEM), lives)
        # They are back indeed: an edit is enforced and told.
        before = harness.enforcement("everything")["snapshot"]
        self.addCleanup(harness.kubectl, "apply", "-k", harness.EXAMPLE)
        harness.kubectl("-n", AGENTS, "delete", "mcprole", "writer", "--wait=false")
        with mcp.Client("ada", "everything") as ada:
            harness.wait("the role is gone", lambda: ada.call("announce", name="platform").unknown, seconds=5)
        harness.wait("status tells of it", lambda: harness.enforcement("everything")["snapshot"] != before, seconds=20)

    def renewed(self):
        """When the leader last touched its Lease."""
        return harness.get("lease", harness.LEASE, SYSTEM)["spec"]["renewTime"]
