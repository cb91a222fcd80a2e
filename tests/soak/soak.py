#!/usr/bin/env python3
"""Mixed traffic through `toolgate local` for a while: servers that die, hang, stream and restart, and a policy edit
every second. Fails on a wrong decision, on a call that reached a server against policy, and on what leaks.

    soak.py --toolgate target/debug/toolgate --seconds 600
"""

import argparse
import collections
import datetime
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import behaviour
import world
from client import Client
from oracle import Verdict

WORKERS = 8
RARE = {"die": 0.02, "hang": 0.01, "garbage": 0.02}  # share of the calls
REFUSALS = {"denied": Verdict.DENY, "unknown": Verdict.UNKNOWN, "scope": Verdict.SCOPE}


class Soak:
    def __init__(self, folder: pathlib.Path, options):
        self.folder, self.options = folder, options
        self.journal = folder / "journal"
        self.journal.touch()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.web_port = listener.getsockname()[1]
        self.web = None
        self.manifests = folder / "manifests"
        self.manifests.mkdir()
        self.world = world.World(self.manifests, options.seed, self.web_port, self.journal)
        self.stop, self.pause = threading.Event(), threading.Event()
        self.counts, self.wrong, self.forbidden = collections.Counter(), [], {}
        self.lock = threading.Lock()

    # --- processes

    def start(self):
        self.start_web()
        ready = self.folder / "ready.json"
        command = [self.options.toolgate, "local", str(self.manifests), "--ready-file", str(ready)]
        command += ["--audit", str(self.folder / "audit.jsonl")]
        self.log = (self.folder / "toolgate.log").open("w")
        self.gate = subprocess.Popen(command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not ready.exists():
            if self.gate.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"toolgate did not start:\n{(self.folder / 'toolgate.log').read_text()[-4000:]}")
            time.sleep(0.05)
        self.told = json.loads(ready.read_text())

    def start_web(self):
        if self.web:
            self.web.kill()
            self.web.wait()
        command = [sys.executable, str(world.HERE / "http_server.py"), str(self.web_port)]
        self.web = subprocess.Popen(command, env={**os.environ, "SOAK_JOURNAL": str(self.journal)})
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.web_port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise SystemExit("the HTTP server did not start")

    # --- traffic

    def client(self, identity: str, server: str) -> Client:
        url = self.told["servers"][server]["url"]
        host, port, path = re.fullmatch(r"http://([^:/]+):(\d+)(/.*)", url).groups()
        return Client((host, int(port)), path, self.told["identities"][identity]["token"])

    def work(self, number: int):
        dice = random.Random(self.options.seed * 1000 + number)
        while not self.stop.is_set():
            if self.pause.is_set():
                time.sleep(0.05)
                continue
            identity, server = dice.choice(list(world.IDENTITIES)), dice.choice(["calm", "calm", "wild", "web"])
            client = self.client(identity, server)
            # Some callers hold a session, some do not care.
            if dice.random() < 0.8 and not client.open():
                self.count("no session")
                client.close()
                time.sleep(0.05)
                continue
            for step in range(dice.choice([1, 5, 40])):
                if self.stop.is_set() or self.pause.is_set():
                    break
                if dice.random() < 0.1:
                    self.listing(client, identity, server)
                elif not self.call(client, identity, server, dice, f"{number}-{step}-{dice.getrandbits(64):x}"):
                    break
            client.close()

    def count(self, what: str):
        with self.lock:
            self.counts[what] += 1

    def judge(self, start: float, end: float, verdicts, expected, what: str, rules=None):
        """`expected` must be what one of the states that may have decided says."""
        grace = self.options.grace
        states = self.world.in_force(start, end, grace)
        said = [verdicts(state.policy) for state in states]
        if expected in said:
            return
        late = [s for s in self.world.in_force(start, end, 30) if verdicts(s.policy) == expected and s.replaced]
        hint = f"; in force {start - late[-1].replaced:.2f} s after it was replaced ({late[-1].what})" if late else ""
        with self.lock:
            about = f"\n  rules: {json.dumps(rules(states[-1].policy))}" if rules and states else ""
            self.wrong.append(f"{what}: got {expected}, but the manifests say {said}{hint}{about}")

    def call(self, client: Client, identity: str, server: str, dice: random.Random, nonce: str) -> bool:
        """One call, judged. False where the client must begin anew."""
        tool = dice.choice(["echo", "read", "write", "slow", "stream", "echo", "absent"])
        chance = dice.random()
        for rare, share in RARE.items():
            if chance < share:
                tool = rare
                break
            chance -= share
        arguments = world.arguments(dice, nonce)
        params = {"name": tool, "arguments": arguments}
        if tool == "stream":
            params["_meta"] = {"progressToken": nonce}
        impatient = tool == "hang" or dice.random() < 0.005
        start, now = time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
        kind, detail = client.ask("tools/call", params, timeout=0.3 if impatient else 8)
        end = time.monotonic()
        self.count(f"{kind} {detail}" if kind == "undecided" else kind)
        who = world.IDENTITIES[identity]
        what = f"{identity} calls {server}/{tool} {json.dumps(arguments)}"

        def verdict(policy):
            return policy.decide(who, server, tool, arguments, now)

        def rules(policy):
            return {"answer": str(detail)[:300], "rules": policy.rules_at_any_time(who, server, tool)}

        with self.lock:
            self.forbidden[nonce] = (start, end, verdict, what)
        if kind == "odd":
            # A server may not know a tool that policy allows; nothing else is expected.
            with self.lock:
                self.wrong.append(f"{what}: unexpected answer {detail}")
        elif kind == "result":
            if nonce not in json.dumps(detail):
                with self.lock:
                    self.wrong.append(f"{what}: someone else's answer {detail}")
            self.judge(start, end, verdict, Verdict.ALLOW, what, rules)
        elif kind in REFUSALS:
            self.judge(start, end, verdict, REFUSALS[kind], what, rules)
        return kind == "result" or kind in REFUSALS

    def listing(self, client: Client, identity: str, server: str):
        start, now = time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
        kind, detail = client.ask("tools/list", {})
        end = time.monotonic()
        self.count(f"list {kind}")
        if kind != "result":
            return
        who = world.IDENTITIES[identity]

        def listed(policy):
            return [tool for tool in behaviour.TOOLS if policy.visible(who, server, tool, now)]

        self.judge(start, end, listed, [tool["name"] for tool in detail["tools"]], f"{identity} lists {server}")

    def edits(self):
        dice = random.Random(self.options.seed)
        restart = time.monotonic() + 5
        while not self.stop.wait(dice.choice([0.4, 0.6, 1.0, 2.0])):
            if not self.pause.is_set():
                self.count("edit " + self.world.edit().split()[0])
            if time.monotonic() > restart:
                self.start_web()
                restart = time.monotonic() + 5

    # --- what leaks

    def descendants(self) -> list[tuple[int, str]]:
        """Children of the gateway, with their state (`Z` for a zombie)."""
        found = []
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self.gate.pid:
                found.append((int(stat.parent.name), fields[0]))
        return found

    def settle(self, seconds: float) -> dict:
        """Stops the traffic for a moment and counts what the gateway holds."""
        self.pause.set()
        deadline = time.monotonic() + seconds
        while True:
            held = self.held()
            calm = held["zombies"] == 0 and held["active"] == 0
            if calm or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        time.sleep(1)
        held = self.held()
        self.pause.clear()
        return held

    def held(self) -> dict:
        proc = pathlib.Path(f"/proc/{self.gate.pid}")
        status = (proc / "status").read_text()
        children = self.descendants()
        handles = self.handles()
        pooled = self.pooled(handles)
        metrics = urllib.request.urlopen(self.told["admin"].rstrip("/") + "/metrics", timeout=5).read().decode()
        active = sum(float(v) for v in re.findall(r"^mcp_active_requests(?:\{[^}]*\})? ([0-9.e+-]+)$", metrics, re.M))
        if "mcp_active_requests" not in metrics:
            active = 0.0  # No request was ever counted.
        # Each child has three pipes and a pidfd; what is left must not grow.
        of_children = 3 * len(children) + min(len(children), handles.count("anon_inode:[pidfd]"))
        return {
            "children": len(children),
            "zombies": sum(state == "Z" for _, state in children),
            "pooled": pooled,
            "handles": len(handles) - of_children - pooled,
            "threads": int(re.search(r"Threads:\s+(\d+)", status)[1]),
            "active": active,
            "rss_mib": round(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024, 1),
        }

    def handles(self) -> list[str]:
        """What each open handle of the gateway is, as the kernel names it."""
        found = []
        for handle in pathlib.Path(f"/proc/{self.gate.pid}/fd").iterdir():
            try:
                found.append(os.readlink(handle))
            except FileNotFoundError:
                pass  # Closed meanwhile.
        return found

    def pooled(self, handles: list[str]) -> int:
        """Connections to the HTTP server, which are kept for the next call: as many as it once took, and none before
        anyone was allowed to call it."""
        rows = pathlib.Path(f"/proc/{self.gate.pid}/net/tcp").read_text().splitlines()[1:]
        rows = [row.split() for row in rows]
        remote, inode, handles = f":{self.web_port:04X}", 9, set(handles)
        return sum(row[2].endswith(remote) and f"socket:[{row[inode]}]" in handles for row in rows)

    def leaks(self, before: dict, after: dict) -> list[str]:
        bad = []
        if after["zombies"]:
            bad.append(f"{after['zombies']} zombies")
        if after["active"]:
            bad.append(f"mcp_active_requests is {after['active']} without traffic")
        # A child per caller without a session may idle, at most one for each identity and server.
        if after["children"] > before["children"] + len(world.IDENTITIES):
            bad.append(f"children: {before['children']} before, {after['children']} after")
        # No worker makes two calls at a time; the gateway itself lists tools.
        if after["pooled"] > WORKERS + 2:
            bad.append(f"connections to the HTTP server: {after['pooled']}")
        for what, slack in (("handles", 8), ("threads", 4)):
            if after[what] > before[what] + slack:
                bad.append(f"{what}: {before[what]} before, {after[what]} after")
        if self.options.seconds >= 120 and after["rss_mib"] > before["rss_mib"] * 1.1:
            bad.append(f"memory: {before['rss_mib']} MiB before, {after['rss_mib']} MiB after")
        return bad

    def against_policy(self) -> list[str]:
        """Calls that a server has seen although no state that may have decided allows them."""
        bad = []
        for nonce in self.journal.read_text().split():
            if nonce not in self.forbidden:
                continue
            start, end, verdict, what = self.forbidden[nonce]
            states = self.world_states(start, end)
            if states and all(verdict(state.policy) != Verdict.ALLOW for state in states):
                bad.append(f"{what}: reached the server")
        return bad

    def world_states(self, start: float, end: float):
        return self.world.in_force(start, end, self.options.grace)

    # --- the run

    def run(self) -> int:
        self.start()
        threads = [threading.Thread(target=self.work, args=(number,), daemon=True) for number in range(WORKERS)]
        threads.append(threading.Thread(target=self.edits, daemon=True))
        for thread in threads:
            thread.start()
        seconds = self.options.seconds
        warm = min(60, seconds / 3)
        leaks, reached = [], []
        try:
            before = self.during(warm)
            print(f"after {warm:.0f} s: {before}", flush=True)
            after = self.during(seconds - warm)
            print(f"after {seconds:.0f} s: {after}", flush=True)
            leaks = self.leaks(before, after)
        finally:
            self.stop.set()
            for thread in threads:
                thread.join(15)
            leaks += self.end()
        return self.report(leaks)

    def during(self, seconds: float) -> dict:
        """Lets the traffic run; looks into the journal in between, while the states of then are still known."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self.gate.poll() is not None:
                raise SystemExit(f"toolgate ended:\n{(self.folder / 'toolgate.log').read_text()[-4000:]}")
            time.sleep(min(left, 10))
            self.look()
        held = self.settle(20)
        self.look()
        return held

    def look(self):
        with self.lock:
            self.wrong += self.against_policy()
            # What is old enough was looked at: the journal of a call is written while the call runs.
            old = time.monotonic() - 20
            self.forbidden = {nonce: call for nonce, call in self.forbidden.items() if call[1] > old}

    def end(self) -> list[str]:
        """Ends the gateway as Ctrl-C does; nothing that it started may be left."""
        children = [pid for pid, _ in self.descendants()]
        bad = []
        self.gate.send_signal(signal.SIGINT)
        try:
            if self.gate.wait(20) != 0:
                bad.append(f"toolgate ended with {self.gate.returncode}")
        except subprocess.TimeoutExpired:
            bad.append("toolgate did not end within 20 s of SIGINT")
            self.gate.kill()
        time.sleep(0.5)
        left = [pid for pid in children if pathlib.Path(f"/proc/{pid}").exists()]
        if left:
            bad.append(f"{len(left)} children outlived the gateway")
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        self.web.kill()
        self.web.wait()
        return bad

    def report(self, leaks: list[str]) -> int:
        counts = ", ".join(f"{what} {count}" for what, count in sorted(self.counts.items()))
        print(f"seen: {counts}")
        results, refusals = self.counts["result"], sum(self.counts[kind] for kind in REFUSALS)
        # A soak in which nothing passes, or nothing is refused, has looked at nothing.
        idle = results < 20 or self.counts["denied"] < 5 or self.counts["unknown"] < 5 or self.counts["list result"] < 5
        # What is wrong comes last: of a long output often only the end is kept.
        if self.wrong or leaks or idle:
            print((self.folder / "toolgate.log").read_text()[-3000:], file=sys.stderr)
        for bad in self.wrong[:20]:
            print(f"wrong: {bad}", file=sys.stderr)
        for bad in leaks:
            print(f"leaked: {bad}", file=sys.stderr)
        if idle:
            print("too little happened to judge by", file=sys.stderr)
        verdict = f"{results} results, {refusals} refusals, {len(self.wrong)} wrong, {len(leaks)} leaks"
        print(f"soak: {verdict} (seed {self.options.seed})", flush=True)
        return 1 if self.wrong or leaks or idle else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toolgate", required=True, help="the program")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--grace", type=float, default=1.0, help="seconds in which an edit must be in force")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of edits and traffic")
    options = parser.parse_args()
    print(f"soak: seed {options.seed}, {options.seconds:.0f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="toolgate-soak-") as folder:
        sys.exit(Soak(pathlib.Path(folder), options).run())


if __name__ == "__main__":
    main()
