"""Without the operator gateways go on enforcing, new pods boot from what it left, and what was edited meanwhile counts
once it is back."""

import os
import signal
import unittest

import harness
import mcp
from harness import AGENTS, OPERATOR, SYSTEM


def enforces(client):
    """Whether a gateway of `everything` allows and denies to `guest` what the example says."""
    return client.call("greet", name="you").allowed and client.call("announce", name="platform").unknown


class OperatorAway(unittest.TestCase):
    """Without the operator what is in force stays in force."""

    def setUp(self):
        harness.quickstart()
        self.addCleanup(harness.kubectl, "apply", "-k", harness.EXAMPLE)
        self.addCleanup(self.bring_back)
        harness.kubectl("-n", SYSTEM, "scale", OPERATOR, "--replicas=0")
        harness.wait("every operator is gone", lambda: not harness.get("pod", namespace=SYSTEM))

    def bring_back(self):
        harness.kubectl("-n", SYSTEM, "scale", OPERATOR, "--replicas=2")
        harness.kubectl("-n", SYSTEM, "rollout", "status", OPERATOR, "--timeout=120s")

    def test_gateways_go_on_enforcing(self):
        for address in harness.addresses("everything"):
            with mcp.Client("guest", "everything", address=address) as guest:
                self.assertTrue(enforces(guest))
                self.assertEqual(guest.tools(), ["greet"])

    def test_a_gateway_that_restarts_in_its_pod_is_what_it_was(self):
        pod = harness.pods("everything")[0]
        before = harness.lives(AGENTS)
        (gateway,) = harness.processes(pod, "toolgate-gateway")
        os.kill(gateway, signal.SIGKILL)
        mine = (pod["metadata"]["name"], pod["metadata"]["uid"], "toolgate-gateway")
        harness.wait("the kubelet starts it again", lambda: harness.lives(AGENTS)[mine] == before[mine] + 1)
        harness.wait("the pod is Ready", lambda: harness.ready(harness.get("pod", pod["metadata"]["name"])))
        # With the certificate that callers trust.
        with mcp.Client("guest", "everything", address=pod["status"]["podIP"]) as guest:
            self.assertTrue(enforces(guest))

    def test_a_new_pod_boots_from_the_configmap_and_enforces(self):
        old = harness.pods("everything")[0]["metadata"]["name"]
        harness.kubectl("-n", AGENTS, "delete", "pod", old)

        def enforcing():
            pods = harness.pods("everything")
            if len(pods) != 2 or any(pod["metadata"]["name"] == old for pod in pods):
                return None
            try:
                for pod in pods:
                    # Nobody is there to sign a certificate for the new one.
                    with mcp.Client("guest", "everything", address=pod["status"]["podIP"], verify=False) as guest:
                        self.assertTrue(enforces(guest))
            except (OSError, KeyError):
                return None  # It does not serve yet.
            return pods

        pods = harness.wait("two pods enforce again", enforcing)
        # So callers are not sent to it: they would find nobody whom they trust.
        self.assertEqual(sum(map(harness.ready, pods)), 1)
        # The operator gives it a certificate.
        self.bring_back()
        harness.wait("both pods are Ready", lambda: all(map(harness.ready, harness.pods("everything"))))
        for pod in harness.pods("everything"):
            with mcp.Client("guest", "everything", address=pod["status"]["podIP"]) as guest:
                self.assertTrue(enforces(guest))

    def test_an_edit_made_meanwhile_is_in_force_after_the_return(self):
        ada = mcp.Client("ada", "everything")
        self.addCleanup(ada.close)
        harness.kubectl("-n", AGENTS, "delete", "mcprole", "writer", "--wait=false")
        # Nobody is there to tell the gateways.
        self.assertTrue(ada.call("announce", name="platform").allowed)
        self.bring_back()
        harness.wait("the role is gone", lambda: ada.call("announce", name="platform").unknown)
        harness.wait_condition("mcpserver", "everything", "Programmed")
