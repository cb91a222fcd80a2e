#!/usr/bin/env python3
"""The control plane at scale: a real API server, the operator, and a simulated gateway for every McpServer.

    control_plane.py run    measure, print a table, write benches/results/{propagation,control_plane}.json

Propagation is the time from the API server's answer to an edit of a role until the last of all gateways has loaded the
new policy and put it in force. The machine is shared by etcd, the API server, the operator and all gateways.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

from hotpath import process
from hotpath.machine import RESULTS, ROOT, machine

UP = ROOT / "tests/cluster/up"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "operator"
OWN, BENCH = "toolgate-system", "bench"
WRITES = {"create", "update", "patch", "delete", "deletecollection"}
REST_SECONDS = 60
RESYNC_SECONDS = 20
SETTLE_SECONDS = 600


class Cluster:
    """An API server of this run's own."""

    def __init__(self, folder: pathlib.Path):
        self.state = folder / "cluster"
        self.env = {**os.environ, "TOOLGATE_TEST_STATE": str(self.state)}
        subprocess.run([UP, "api-up"], env=self.env, check=True, stdout=subprocess.DEVNULL)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        command = [UP, "exec", "kubectl", *words]
        done = subprocess.run(command, env=self.env, input=stdin, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"kubectl {' '.join(words)}:\n{done.stderr}")
        return done.stdout

    def install(self, folder: pathlib.Path) -> pathlib.Path:
        """The definitions, and a kubeconfig of the operator's own account, so that its writes can be told apart."""
        self.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        for namespace in (OWN, BENCH):
            self.kubectl("create", "namespace", namespace)
        self.kubectl("create", "serviceaccount", "toolgate-operator", "-n", OWN)
        self.kubectl("create", "clusterrolebinding", "toolgate-operator", "--clusterrole=cluster-admin",
                     f"--serviceaccount={OWN}:toolgate-operator")
        token = self.kubectl("create", "token", "toolgate-operator", "-n", OWN, "--duration=24h").strip()
        config = json.loads(self.kubectl("config", "view", "--raw", "-o", "json"))
        config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
        path = folder / "operator.kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def operator_writes(self) -> list[str]:
        """Every write of the operator so far, in words, but those of its Lease."""
        found = []
        for log in sorted((self.state / "log").glob("audit*")):
            for line in log.read_text().splitlines():
                event = json.loads(line)
                if event["verb"] in WRITES and event["user"]["username"] == f"system:serviceaccount:{OWN}:toolgate-operator":
                    of = event.get("objectRef", {})
                    if of.get("resource") != "leases":
                        found.append(f"{event['verb']} {of.get('resource')}/{of.get('name')} {of.get('subresource', '')}")
        return found

    def down(self):
        subprocess.run([UP, "down"], env=self.env, check=False, stdout=subprocess.DEVNULL)


class Fleet:
    """The simulated gateways: a word in, a line of JSON out."""

    def __init__(self, cluster: Cluster, servers: int, tools: int, url: str, log: pathlib.Path):
        command = [TARGET / "examples/bench-fleet", "--namespace", BENCH, "--servers", str(servers),
                   "--tools", str(tools), "--policy-server", url]
        env = {**os.environ, "KUBECONFIG": str(cluster.state / "kubeconfig/admin")}
        self.log = log
        self.child = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=log.open("w"), text=True)

    def say(self, word: str) -> dict:
        print(f"{word} …", flush=True)
        self.child.stdin.write(word + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            raise SystemExit(f"bench-fleet ended at `{word}`:\n{self.log.read_text()[-4000:]}")
        return json.loads(line)

    def stop(self):
        self.child.kill()
        self.child.wait()


def operator(folder: pathlib.Path, kubeconfig: pathlib.Path, policy: int, admin: int, number: int) -> process.Server:
    command = [TARGET / "toolgate-operator", "--policy-listen", f"127.0.0.1:{policy}",
               "--policy-server", f"https://127.0.0.1:{policy}", "--admin", f"127.0.0.1:{admin}", "--namespace", OWN,
               "--gateway-image", "localhost/toolgate:bench", "--identity", f"operator-{number}",
               "--resync", str(RESYNC_SECONDS), "--log-format", "text"]
    server = process.Server("operator", [str(word) for word in command], folder / f"operator-{number}.log",
                            {"KUBECONFIG": str(kubeconfig)})
    server.wait_for(lambda: process.urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=2).status == 200)
    return server


def settled(cluster: Cluster) -> int:
    """Waits until all that follows from what was declared is written; how many writes there were until then."""
    deadline, before = time.monotonic() + SETTLE_SECONDS, -1
    while (now := len(cluster.operator_writes())) != before:
        if time.monotonic() > deadline:
            raise SystemExit(f"the operator still writes {SETTLE_SECONDS} s after the last declaration")
        before = now
        time.sleep(RESYNC_SECONDS)
    return now


def measure(folder: pathlib.Path, servers: int, tools: int, edits: int) -> tuple[dict, dict, list]:
    cluster = Cluster(folder)
    running = []
    try:
        kubeconfig = cluster.install(folder)
        policy, admin = process.free_port(), process.free_port()
        first = operator(folder, kubeconfig, policy, admin, 1)
        running.append(first)
        fleet = Fleet(cluster, servers, tools, f"https://127.0.0.1:{policy}", folder / "fleet.log")
        running.append(fleet)
        cold = fleet.say("create")
        print(json.dumps(cold))
        settled(cluster)
        taken = fleet.say(f"edit {edits}")["ms"]
        fleet.say("verify")
        before = settled(cluster)
        time.sleep(REST_SECONDS)
        writes = cluster.operator_writes()[before:]
        for write in writes[:10]:
            print(f"written at rest: {write}")
        rss = first.rss_mib()
        cpu = first.cpu_us() / 1e6
        first.stop()
        restarted = time.monotonic()
        second = operator(folder, kubeconfig, policy, admin, 2)
        running.append(second)
        fleet.say("verify")
        restart_verified = time.monotonic() - restarted
        rss_restarted = second.rss_mib()
        quantile = statistics.quantiles(taken, n=100)
        propagation = {"gateways": servers, "edits": edits, "p50_ms": round(quantile[49], 1), "p99_ms": round(quantile[98], 1)}
        plane = {
            "servers": servers, "tools": servers * tools, "rss_mib": round(rss, 1),
            "rss_restarted_mib": round(rss_restarted, 1), "cpu_s": round(cpu, 1),
            "cold_programmed_s": cold["seconds"], "declared_s": round(cold["declared_seconds"], 1),
            "restart_verified_s": round(restart_verified, 1), "writes_at_rest_60s": len(writes),
        }
        return propagation, plane, taken
    finally:
        for one in reversed(running):
            one.stop()
        cluster.down()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run"])
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--tools", type=int, default=10, help="of each server")
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--no-build", action="store_true", help="measure what target/operator holds")
    arguments = parser.parse_args()
    subprocess.run([UP, "build", "api"], check=True)
    if not arguments.no_build:
        build = ["cargo", "build", "--profile", "operator", "--locked", "--no-default-features", "--features", "operator",
                 "--bin", "toolgate-operator", "--example", "bench-fleet"]
        subprocess.run(build, cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory(prefix="toolgate-bench-") as folder:
        propagation, plane, taken = measure(pathlib.Path(folder), arguments.servers, arguments.tools, arguments.edits)
    print(json.dumps({"propagation": propagation, "control_plane": plane}, indent=2))
    RESULTS.mkdir(exist_ok=True)
    for name, figures in (("propagation", propagation), ("control_plane", plane)):
        (RESULTS / f"{name}.json").write_text(json.dumps(figures | machine(), indent=2) + "\n")
    (RESULTS / "propagation.runs.json").write_text(json.dumps({**machine(), "ms": taken}, indent=1) + "\n")


if __name__ == "__main__":
    main()
