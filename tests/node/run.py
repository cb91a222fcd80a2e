#!/usr/bin/env python3
"""Runs the tests on a real node. Owns the node; the tests themselves run beside it, in suite.py.

  run.py            a node of its own with our images, every file in order, and the end of the node
  run.py FILE…      some files (`revocation` is check_revocation.py), on the node that is up; else on one of their own;
                    and where a name begins with `test_`, of these files that test alone
  run.py up         a node with our images, which stays: `tests/cluster/up down` ends it
  run.py images     packs the images anew, after a build; pods that run keep what they have

README.md beside this file says how a test is written. Needs root, and what `.ci/prerequisites node` names."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import images
import suite
from images import ROOT, UP

HERE = pathlib.Path(__file__).resolve().parent
STATE = pathlib.Path(os.environ.get("TOOLGATE_TEST_STATE") or "/var/tmp/toolgate-test")


def say(text):
    print(f"node: {text}", file=sys.stderr, flush=True)


def is_up():
    return (STATE / "containerd.sock").exists()


def pack():
    begun = time.monotonic()
    images.everything()
    say(f"images are packed ({time.monotonic() - begun:.0f} s)")


@contextlib.contextmanager
def own_node():
    """A node that ends with this process, however this process ends."""
    begun = time.monotonic()
    # In a session of its own: Ctrl-C must leave the node to us until the tests have said what they found.
    node = subprocess.Popen(
        [UP, "node-up", "--follow"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        node.stdout.read()  # it ends when the node is up, or has failed
        if not is_up():
            raise SystemExit(node.wait() or 1)
        say(f"the node is up ({time.monotonic() - begun:.0f} s)")
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        node.stdin.close()
        node.wait()


def run(files):
    """Runs the tests beside the node, and returns their exit code."""
    helm = images.run(ROOT / ".ci/charts", "helm").strip()
    command = [UP, "exec", "env", f"HELM={helm}", sys.executable, "-u", HERE / "suite.py", *files]
    return subprocess.run(command, check=False).returncode


def main(arguments):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.getuid() != 0:
        raise SystemExit("a node needs root")
    if arguments not in (["up"], ["images"]):
        suite.chosen(arguments)  # says early what is not there
    match arguments:
        case ["up"]:
            subprocess.run([UP, "node-up"], check=True, stdout=subprocess.DEVNULL)
            pack()
            say(f"it stays until `{UP} down`")
        case ["images"]:
            pack()
        case [*files] if files and is_up():
            say(f"using the node in {STATE}")
            return run(files)
        case files:
            images.programs()  # says early what is not built
            with own_node():
                pack()
                return run(files)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(f"node: {error}")
