"""The walk-through of `docs/kubernetes.md` and README, word for word: its commands in one shell, as a reader types
them, and what they print beside what is shown there. Begins with an empty cluster; leaves one in which everything is
installed.

Only three things differ from what a reader does: images are packed instead of built, what takes until it listens is
awaited, and ages, request ids and the width of columns are not compared."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

import harness
import images
from harness import ROOT

GUIDE = ROOT / "docs/kubernetes.md"
README = ROOT / "README.md"
# For one command: more than the documents' own `--timeout=120s`.
PATIENCE_SECONDS = 180


def blocks(text):
    """The blocks of a document that are typed: (language, text), in order."""
    return re.findall(r"^```(console|bash)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def steps(text):
    """What a reader types, in order: (command, what is shown beneath it)."""
    for language, block in blocks(text):
        if language == "bash":
            yield block, ""
            continue
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown


def section(text, title):
    """A section of a document."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def comparable(output):
    """What of an output must be the same each time."""
    # What a forwarded port says of each connection comes between, whenever it likes.
    output = re.sub(r"(?m)^(Forwarding from|Handling connection for) .*\n", "", output)
    output = re.sub(r'"requestId":"[0-9a-f]+-[0-9a-f]+"', '"requestId":"…"', output)
    output = re.sub(r"(?m)(?<=\s)(\d+[smhd])+$", "AGE", output)
    lines = [re.sub(r"\s+", " ", line).strip() for line in output.splitlines()]
    return [line for line in lines if line]


def listens(port):
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


# kubectl port-forward runs in the background, and complains of a connection that its caller ends at whatever time.
BACKGROUND = re.compile(r"[EW]\d{4} [\d:.]+ +\d+ portforward\.go:")


class Shell:
    """A shell that is typed into, in a folder with what a reader has checked out."""

    def __init__(self, folder):
        for part in ("charts", "examples"):
            shutil.copytree(ROOT / part, folder / part)
        self.process = subprocess.Popen(
            ["bash", "--norc", "-o", "pipefail"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            text=True,
            start_new_session=True,
        )

    def end(self):
        """Ends the shell and what runs in its background."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def type(self, command):
        """Types a command; its exit code and what it printed."""
        # Background jobs keep the output open, so a line marks the end of a command, not the end of the stream.
        mark = f"end-{secrets.token_hex(8)}"
        self.process.stdin.write(f"{command}\nprintf '\\n%s %s\\n' {mark} $?\n")
        self.process.stdin.flush()
        deadline = threading.Timer(PATIENCE_SECONDS, self.end)
        deadline.start()
        said = []
        try:
            for line in self.process.stdout:
                if line.startswith(mark):
                    return int(line.split()[1]), "".join(said)
                if not BACKGROUND.match(line):
                    said.append(line)
        finally:
            deadline.cancel()
        raise AssertionError(f"no end after {PATIENCE_SECONDS} s: {command}\n{''.join(said)}")


class Documentation(unittest.TestCase):
    """A reader gets what the documents show."""

    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.shell = Shell(Path(folder.name))
        self.addCleanup(self.shell.end)

    def follow(self, text):
        """Types what a document says, all but the building of images, and compares."""
        for command, shown in steps(text):
            if command.startswith("docker "):
                continue
            if command.startswith("kubectl get "):
                # Tools and roles are told a moment after their servers.
                with contextlib.suppress(AssertionError):
                    harness.wait(command, lambda: self.same(command, shown), seconds=10, every=0.5)
            code, output = self.shell.type(command)
            self.assertEqual(code, 0, f"{command}\n{output}")
            if shown:
                self.assertEqual(comparable(output), comparable(shown), command)
            for port in re.findall(r"^kubectl port-forward .* (\d+):\d+ &$", command, re.MULTILINE):
                harness.wait(f"port {port} is forwarded", lambda: listens(int(port)), seconds=30)

    def same(self, command, shown):
        """Whether a command prints what is shown."""
        return comparable(self.shell.type(command)[1]) == comparable(shown)

    def test_the_images_of_the_guide_are_those_of_the_tests(self):
        built = [command for command, _ in steps(GUIDE.read_text()) if command.startswith("docker build ")]
        named = [re.search(r" -t (\S+)", command)[1] for command in built]
        self.assertEqual(named, [images.TOOLGATE, *images.SERVERS])

    def test_the_guide_does_what_it_shows_from_installation_to_removal(self):
        harness.clean()
        self.follow(GUIDE.read_text())
        left = harness.kubectl("get", "namespace,crd", "-o", "name")
        for gone in ("toolgate", harness.AGENTS):
            self.assertNotIn(gone, left)

    def test_the_readme_installs_from_nothing_in_a_namespace_that_enforces_restricted(self):
        harness.clean()
        self.follow(section(README.read_text(), "On a cluster"))
        servers = {server["metadata"]["name"] for server in harness.get("mcpserver")}
        self.assertEqual(servers, {"memory", "everything"})
        privileged = ["run", "privileged", "--image=localhost/none:1", "--privileged", "--dry-run=server"]
        with self.assertRaisesRegex(RuntimeError, 'violates PodSecurity "restricted'):
            harness.kubectl("-n", harness.AGENTS, *privileged)
