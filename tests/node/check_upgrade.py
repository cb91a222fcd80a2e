"""An upgrade, a rollback, and the time between an uninstallation and the next installation: no pod of a server is replaced
and every rule is enforced, whichever version the operator has.

The next version is made here: the charts of this one with another version, another image with the same programs, and in
each kind a field that this version does not know."""

import shutil
import tempfile
import unittest
from pathlib import Path

import harness
import images
import mcp
from harness import AGENTS, ROOT, SYSTEM

NEXT = "0.2.0"
NEXT_IMAGE = images.TOOLGATE.replace("0.1.0", NEXT)
KINDS = ("mcpserver", "mcptool", "mcprole", "mcpgateway")
SERVERS = ("everything", "memory")
# Beside the fields that every kind has: within `spec`, as they are indented in the definitions.
FIELD = """\
              tomorrow:
                description: What the next version adds.
                properties:
                  since:
                    type: string
                type: object
"""
# What an object of the next version says.
SET = {"tomorrow": {"since": NEXT}}
TEMPORARY = """
apiVersion: toolgate.dev/v1alpha1
kind: McpRole
metadata: {name: temporary}
spec:
  subjects: [{kind: ServiceAccount, name: guest, namespace: agents}]
  rules: [{effect: Allow, servers: [memory], tools: [create_entities]}]
"""


def next_charts(folder):
    """The charts of the next version."""
    for name in ("toolgate", "toolgate-crds"):
        chart = folder / name
        shutil.copytree(ROOT / "charts" / name, chart)
        about = chart / "Chart.yaml"
        about.write_text(about.read_text().replace("ersion: 0.1.0", f"ersion: {NEXT}"))
    for definition in (folder / "toolgate-crds/files").glob("*.yaml"):
        head, properties, tail = definition.read_text().partition("\n          spec:\n")
        before, marker, after = tail.partition("\n            properties:\n")
        assert properties and marker, definition
        definition.write_text(head + properties + before + marker + FIELD + after)


def uids():
    """The pods of all servers."""
    return {server: sorted(pod["metadata"]["uid"] for pod in harness.pods(server)) for server in SERVERS}


def gateway_images(server):
    """The images of the gateways that run."""
    return {
        container["image"]
        for pod in harness.pods(server)
        for container in pod["spec"]["initContainers"]
        if container["name"] == "toolgate-gateway"
    }


def operator_images():
    return {pod["spec"]["containers"][0]["image"] for pod in harness.operators()}


def message(server):
    """What `Available` says."""
    return harness.wait_condition("mcpserver", server, "Available")["message"]


class Upgrade(unittest.TestCase):
    """In this order: upgrade, new gateways on demand, rollback, uninstallation, installation."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        harness.quickstart()
        images.toolgate(NEXT_IMAGE)
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        next_charts(cls.folder)
        cls.before = uids()

    def traffic(self):
        """Calls at each gateway by itself."""
        calls = [
            (mcp.Client("ada", "everything", address=address), "greet", {"name": "you"})
            for address in harness.addresses("everything")
        ]
        return mcp.Traffic([*calls, (mcp.Client("ada", "memory"), "read_graph", {})])

    def enforces(self, verify=True):
        """Every gateway allows and denies what the example says."""
        for server in SERVERS:
            for address in [pod["status"]["podIP"] for pod in harness.pods(server)]:
                with mcp.Client("guest", server, address=address, verify=verify) as guest:
                    if server == "memory":
                        self.assertTrue(guest.call("read_graph").allowed)
                        self.assertTrue(guest.call("create_entities", entities=[]).unknown)
                    else:
                        self.assertTrue(guest.call("greet", name="you").allowed)
                        self.assertTrue(guest.call("announce", name="platform").unknown)

    def edits_count(self):
        """A grant and its end reach the gateways, and status follows."""
        with mcp.Client("guest", "memory") as guest:
            harness.apply(TEMPORARY)
            harness.wait_condition("mcprole", "temporary", "Programmed")
            self.assertTrue(guest.call("create_entities", entities=[]).allowed)
            harness.kubectl("-n", AGENTS, "delete", "mcprole", "temporary")
            harness.wait("it is revoked", lambda: guest.call("create_entities", entities=[]).unknown, seconds=5)

    def well(self):
        """Nothing is stalled, and every server is Ready and enforced by all of its pods."""
        for server in SERVERS:
            harness.wait_condition("mcpserver", server, "Ready")
            harness.wait_condition("mcpserver", server, "Programmed")

            def counted(server=server):
                now, pods = harness.enforcement(server), len(harness.pods(server))
                return now["ready"] == now["acknowledged"] == pods

            harness.wait(f"all pods of {server} enforce", counted)
        stalled = [what for what, (status, *_) in harness.conditions().items() if what[2] == "Stalled" and status == "True"]
        self.assertEqual(stalled, [])

    def test_1_new_kinds_keep_the_objects_and_take_the_new_field(self):
        objects = lambda: {kind: sorted(one["metadata"]["uid"] for one in harness.get(kind)) for kind in KINDS}
        before = objects()
        harness.helm("upgrade", "toolgate-crds", self.folder / "toolgate-crds", "--wait")
        self.assertEqual(objects(), before)
        for kind in KINDS:
            # The definitions are served anew a moment later.
            name = harness.get(kind)[0]["metadata"]["name"]
            harness.wait(
                f"{kind} has the new field",
                lambda kind=kind, name=name: harness.patch(kind, name, {"spec": SET})["spec"].get("tomorrow"),
            )
        harness.patch("mcpserver", "memory", {"spec": SET})
        # The operator of this version does not know the field, and nothing is held up by it.
        self.well()
        self.edits_count()
        self.assertEqual(uids(), self.before)

    def test_2_a_newer_operator_replaces_no_pod_and_every_rule_is_enforced(self):
        with self.traffic() as traffic:
            harness.helm("upgrade", "toolgate", self.folder / "toolgate", "--wait")
            harness.wait("only newer operators run", lambda: operator_images() == {NEXT_IMAGE})
            for server in SERVERS:
                # It leads, and has looked at the server.
                harness.wait("the waiting gateway is told", lambda server=server: "gatewayUpdate" in message(server))
            traffic.goes_on(100)
        harness.note(f"upgrade: {traffic.summary()}")
        self.assertEqual(traffic.failures, [])
        self.well()
        self.enforces()
        self.edits_count()
        self.assertEqual(uids(), self.before)
        for server in SERVERS:
            self.assertEqual(gateway_images(server), {images.TOOLGATE})

    def test_3_rolling_has_the_new_gateway_at_once_and_nobody_else_does(self):
        harness.patch("mcpserver", "everything", {"spec": {"gatewayUpdate": "Rolling"}})

        def replaced():
            pods = harness.pods("everything")
            return len(pods) == 2 and gateway_images("everything") == {NEXT_IMAGE} and all(map(harness.ready, pods))

        harness.wait("both pods have the new gateway", replaced, seconds=180)
        self.assertNotIn("gatewayUpdate", message("everything"))
        self.well()
        self.enforces()
        self.assertEqual(uids()["memory"], self.before["memory"])
        harness.patch("mcpserver", "everything", {"spec": {"gatewayUpdate": "OnRollout"}})
        harness.wait_condition("mcpserver", "everything", "Programmed")

    def test_4_a_rollback_works_with_what_the_newer_one_wrote(self):
        before = uids()
        with self.traffic() as traffic:
            harness.helm("rollback", "toolgate", "--wait")
            harness.wait("only older operators run", lambda: operator_images() == {images.TOOLGATE})
            # The gateways of `memory` are of its own version, those of `everything` are newer.
            harness.wait("the older one leads", lambda: "gatewayUpdate" not in message("memory"))
            harness.wait("it has looked at both", lambda: "gatewayUpdate" in message("everything"))
            traffic.goes_on(100)
        harness.note(f"rollback: {traffic.summary()}")
        self.assertEqual(traffic.failures, [])
        self.well()
        self.enforces()
        self.edits_count()
        self.assertEqual(uids(), before)
        self.assertEqual(gateway_images("everything"), {NEXT_IMAGE})
        # What it does not know it leaves alone.
        self.assertEqual(harness.get("mcpserver", "memory")["spec"]["tomorrow"], SET["tomorrow"])

    def test_5_an_uninstallation_leaves_gateways_enforcing_and_the_next_installation_takes_over(self):
        before = uids()
        with self.traffic() as traffic:
            harness.helm("uninstall", "toolgate", "--wait")
            self.assertEqual(harness.operators(), [])
            traffic.goes_on(100)
        self.assertEqual(traffic.failures, [])
        self.enforces()
        self.assertEqual(uids(), before)
        # A new pod boots from its ConfigMap. Nobody is there to sign a certificate for it.
        harness.kubectl("-n", AGENTS, "delete", "pod", "-l", "toolgate.dev/server=memory", "--wait=false")

        def enforcing():
            pods = harness.pods("memory")
            if len(pods) != 1 or pods[0]["metadata"]["uid"] in before["memory"]:
                return None
            try:
                self.enforces(verify=False)
            except (OSError, KeyError):
                return None  # It does not serve yet.
            return pods[0]

        # So callers are not sent to it: they would find nobody whom they trust.
        self.assertFalse(harness.ready(harness.wait("a new pod of memory enforces", enforcing)))
        before = uids()

        harness.helm("install", "toolgate", "charts/toolgate", "--wait")

        # Status still says what was so before; the pods say when they have certificates again.
        every = lambda: [pod for server in SERVERS for pod in harness.pods(server)]
        harness.wait("every pod is Ready", lambda: all(map(harness.ready, every())))
        self.well()
        self.enforces()
        self.edits_count()
        self.assertEqual(uids(), before)
        # The same key: whoever trusted it goes on doing so.
        harness.get("secret", "toolgate-keys", SYSTEM)

    @classmethod
    def tearDownClass(cls):
        for kind in KINDS:
            for one in harness.get(kind):
                if "tomorrow" in one["spec"]:
                    harness.patch(kind, one["metadata"]["name"], {"spec": {"tomorrow": None}})
        harness.helm("rollback", "toolgate-crds", "--wait")
