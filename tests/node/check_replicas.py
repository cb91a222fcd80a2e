"""Three operators, gateways spread over them: when the leader goes, no call notices, and status stays true."""

import ipaddress
import os
import signal
import struct
import threading
import unittest
from datetime import datetime, timezone
from pathlib import Path

import harness
import mcp
from harness import AGENTS, SYSTEM

POLICY_PORT = 9443
ESTABLISHED = "01"
GATEWAYS = 4  # of `everything`


def peers(pod, port):
    """Addresses that have a connection to a port of a pod, once for each connection."""
    process = harness.processes(pod, "toolgate-operator")[0]
    found = []
    for line in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state = line.split()[:4]
        if state == ESTABLISHED and int(local.split(":")[1], 16) == port:
            # The kernel prints the address as a number of this machine's byte order.
            found.append(str(ipaddress.IPv4Address(struct.pack("=I", int(remote.split(":")[0], 16)))))
    return found


def spread():
    """How many gateways each operator has: {pod: number}."""
    gateways = {pod["status"].get("podIP") for server in ("everything", "memory") for pod in harness.pods(server)}
    there = {pod["metadata"]["name"]: peers(pod, POLICY_PORT) for pod in harness.operators()}
    return {operator: sum(peer in gateways for peer in peers) for operator, peers in there.items()}


class Watch:
    """Reads the enforcement of both servers all the time, and keeps what is not as it should be."""

    def __init__(self):
        self.samples, self.wrong, self.end = 0, [], threading.Event()
        self.thread = threading.Thread(target=self.loop, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.thread.join(30)

    def loop(self):
        while not self.end.wait(0.2):
            for server, expected in (("everything", GATEWAYS), ("memory", 1)):
                status = harness.get("mcpserver", server)["status"]
                counts = status["enforcement"]
                (ready,) = (one for one in status["conditions"] if one["type"] == "Ready")
                if (counts["ready"], counts["acknowledged"], ready["status"]) != (expected, expected, "True"):
                    self.wrong.append((server, counts, ready))
            self.samples += 1


class Replicas(unittest.TestCase):
    """When the leader goes, no call notices."""

    @classmethod
    def setUpClass(cls):
        harness.quickstart()
        cls.addClassCleanup(cls.restore)
        harness.helm("upgrade", "toolgate", "charts/toolgate", "--set", "replicas=3", "--wait")

    @classmethod
    def restore(cls):
        # Without a word Helm keeps the values that it was given before.
        harness.helm("upgrade", "toolgate", "charts/toolgate", "--reset-values", "--wait")
        harness.kubectl("apply", "-k", harness.EXAMPLE)
        harness.wait("two gateways are left", lambda: len(harness.pods("everything")) == 2)

    def setUp(self):
        harness.wait("three operators are Ready", lambda: sum(map(harness.ready, harness.operators())) == 3)
        harness.wait("one of them leads", harness.leader)
        harness.patch("mcpserver", "everything", {"spec": {"replicas": GATEWAYS}})
        harness.wait("all gateways are Ready", lambda: len(harness.addresses("everything")) == GATEWAYS)
        # A gateway keeps its stream for half an hour, and a new one takes any operator: start some anew until the leader
        # has some and others have some.
        for _ in range(20):
            harness.wait("every gateway is connected", lambda: sum(spread().values()) == GATEWAYS + 1)
            found, leader = spread(), harness.leader()
            if 0 < found[leader] < GATEWAYS + 1:
                break
            fullest = max(found, key=found.get)
            (operator,) = (one for one in harness.operators() if one["metadata"]["name"] == fullest)
            there = set(peers(operator, POLICY_PORT))
            pod = next(pod for pod in harness.pods("everything") if pod["status"]["podIP"] in there)
            harness.kubectl("-n", AGENTS, "delete", "pod", pod["metadata"]["name"], "--wait=false")
            harness.wait("all gateways are Ready", lambda: len(harness.addresses("everything")) == GATEWAYS)
        harness.note(f"gateways of the leader: {found[leader]}, of each operator: {sorted(found.values())}")
        self.assertEqual(len(found), 3)
        self.assertTrue(0 < found[leader] < GATEWAYS + 1)
        for server, number in (("everything", GATEWAYS), ("memory", 1)):
            expected = (number, number)

            def counted(server=server, expected=expected):
                counts = harness.enforcement(server)
                return (counts["ready"], counts["acknowledged"]) == expected

            harness.wait(f"status counts the gateways of {server}", counted)
            harness.wait_condition("mcpserver", server, "Ready")

    def traffic(self):
        """Calls at each gateway by itself."""
        calls = [
            (mcp.Client("ada", "everything", address=address), "greet", {"name": "you"})
            for address in harness.addresses("everything")
        ]
        return mcp.Traffic([*calls, (mcp.Client("ada", "memory"), "read_graph", {})])

    def loses_leader(self, end):
        """Ends the leader while calls go on. Holds that nobody noticed, and returns after how long another led."""
        old = harness.leader()
        (pod,) = (one for one in harness.operators() if one["metadata"]["name"] == old)
        with self.traffic() as traffic, Watch() as watch:
            begun = datetime.now(timezone.utc)
            end(pod)
            harness.wait("another leads", lambda: (harness.leader() or old) != old)
            # What the new leader says itself: asking takes longer than a busy machine's second.
            since = harness.get("lease", harness.LEASE, SYSTEM)["spec"]["acquireTime"]
            took = (datetime.fromisoformat(since.replace("Z", "+00:00")) - begun).total_seconds()
            harness.wait("its gateways went to others", lambda: sum(spread().values()) == GATEWAYS + 1)
            harness.wait("three operators are Ready", lambda: sum(map(harness.ready, harness.operators())) == 3)
            traffic.goes_on(100)
        harness.note(f"new leader after {took:.1f} s; {traffic.summary()}; {watch.samples} readings of status")
        self.assertEqual(traffic.failures, [])
        self.assertEqual(watch.wrong, [])
        self.assertGreater(watch.samples, 5)
        return took

    def edits_count(self):
        """Holds that somebody leads: an edit is enforced and told."""
        before = harness.enforcement("everything")["snapshot"]
        self.addCleanup(harness.kubectl, "apply", "-k", harness.EXAMPLE)
        harness.kubectl("-n", AGENTS, "delete", "mcprole", "writer", "--wait=false")
        with mcp.Client("ada", "everything") as ada:
            harness.wait("the role is gone", lambda: ada.call("announce", name="platform").unknown, seconds=5)

        def told():
            now = harness.enforcement("everything")
            return now["snapshot"] != before and now["ready"] == now["acknowledged"] == GATEWAYS

        harness.wait("status tells of it", told, seconds=20)

    def test_a_killed_leader_is_replaced_in_twenty_seconds_and_no_call_notices(self):
        def kill(pod):
            # The process first: it must have no time to say goodbye.
            for process in harness.processes(pod, "toolgate-operator"):
                os.kill(process, signal.SIGKILL)
            harness.kubectl("-n", SYSTEM, "delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")

        self.assertLess(self.loses_leader(kill), 20)
        self.edits_count()

    def test_a_leader_that_is_asked_to_go_is_replaced_in_three_seconds_and_no_call_notices(self):
        def ask(pod):
            harness.kubectl("-n", SYSTEM, "delete", "pod", pod["metadata"]["name"], "--wait=false")

        self.assertLess(self.loses_leader(ask), 3)
        self.edits_count()
