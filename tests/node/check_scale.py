"""Whoever scales a server has the last word: `kubectl scale`, an autoscaler, and not the operator nor the manifest that
leaves the number out."""

import unittest

import harness
from harness import AGENTS


class Scale(unittest.TestCase):
    """What scales a McpServer is not reverted. `memory` leaves `replicas` out of its manifest."""

    @classmethod
    def setUpClass(cls):
        harness.quickstart()

    def setUp(self):
        self.addCleanup(self.runs, 1)
        self.addCleanup(harness.kubectl, "-n", AGENTS, "scale", "mcpserver/memory", "--replicas=1")

    def runs(self, number):
        """Waits until that many pods are Ready, in the words of every object."""

        def seen():
            server, deployment = harness.get("mcpserver", "memory"), harness.get("deployment", "memory")
            return (
                server["spec"]["replicas"] == server["status"]["replicas"] == number
                and deployment["spec"]["replicas"] == deployment["status"].get("readyReplicas", 0) == number
                and len(harness.addresses("memory")) == number
            )

        harness.wait(f"{number} pods", seen, seconds=120)
        harness.wait_condition("mcpserver", "memory", "Ready")

    def stays(self, number):
        """Neither the operator reverts it, once it has seen another edit, nor the manifest."""
        harness.kubectl("apply", "-k", harness.EXAMPLE)
        harness.patch("mcpserver", "memory", {"spec": {"serverRequests": {"roots": "Allow"}}})
        harness.wait_condition("mcpserver", "memory", "Programmed")
        self.runs(number)
        harness.kubectl("apply", "-k", harness.EXAMPLE)
        harness.patch("mcpserver", "memory", {"spec": {"serverRequests": {"roots": "Deny"}}})
        harness.wait_condition("mcpserver", "memory", "Programmed")
        self.runs(number)

    def test_kubectl_scale_is_not_reverted(self):
        harness.kubectl("-n", AGENTS, "scale", "mcpserver/memory", "--replicas=2")
        self.runs(2)
        self.stays(2)
        harness.kubectl("-n", AGENTS, "scale", "mcpserver/memory", "--replicas=1")
        self.runs(1)

    def test_kubectl_autoscale_raises_to_its_minimum_and_is_not_reverted(self):
        self.addCleanup(harness.kubectl, "-n", AGENTS, "delete", "hpa", "memory", "--ignore-not-found")
        harness.kubectl("-n", AGENTS, "autoscale", "mcpserver/memory", "--min=2", "--max=3")
        self.runs(2)
        self.stays(2)
        scaler = harness.get("hpa", "memory")
        conditions = {one["type"]: one for one in scaler["status"]["conditions"]}
        self.assertEqual(conditions["AbleToScale"]["status"], "True", conditions)
        self.assertEqual(scaler["status"]["currentReplicas"], 2)
