#!/usr/bin/env python3
"""The cost of a call through the gateway, beside its peers, in one run on one machine.

    hot_path.py run     measure, print tables, write benches/results/hot_path.json and hot_path.runs.json
    hot_path.py check   a short run; fails when a ratio of the recorded results is off by more than 20 %
    hot_path.py versus PROGRAM
                        this build and another one (the program `toolgate` of an earlier commit) in turn; fails when the
                        median CPU per call is more than 5 % above the other's

CPU per call of the gateway process is the robust figure; requests per second compare only within one run.
"""

import argparse
import datetime
import json
import pathlib
import statistics
import tempfile

from hotpath import peers, process
from hotpath.machine import RESULTS, machine

CONNECTIONS = (1, 32)
RATIOS = ("cpu_vs_envoy_32", "rps_vs_envoy_32", "rps_vs_mcp_proxy_32")
TOLERANCE = 0.2
REGRESSION = 1.05


def measure(peer: peers.Peer, connections: int, seconds: int) -> dict:
    before = peer.server.cpu_us()
    told = process.load(peers.ROOT / "benches/call.lua", peer.url, peer.requests, connections, seconds)
    cpu = peer.server.cpu_us() - before
    calls = told["requests"]
    if told["socket_errors"] or not calls:
        raise SystemExit(f"{peer.name}: {told}")
    return {
        "peer": peer.name,
        "connections": connections,
        "calls": calls,
        "rps": round(calls / (told["microseconds"] / 1e6), 1),
        "p50_us": told["p50"],
        "p99_us": told["p99"],
        "cpu_us_per_call": round(cpu / calls, 2),
        "rss_mib": round(peer.server.rss_mib(), 1),
        "bad_status": told["bad_status"],
    }


def audited(peer: peers.Peer, calls: int):
    """Every call that was answered left its record: nothing was skipped for speed."""
    peer.server.stop()
    with peer.audit.open() as lines:
        records = [json.loads(line) for line in lines]
    ended = [record for record in records if record.get("event") == "request" and record.get("method") == "tools/call"]
    refused = sum(record["decision"] == "deny" for record in ended)
    if len(ended) < calls or not 0.08 < refused / len(ended) < 0.12:
        raise SystemExit(f"{peer.name}: {calls} calls, {len(ended)} audit records, {refused} of them refused")
    print(f"{peer.name}: {len(ended)} audit records for {calls} calls, {refused / len(ended):.1%} refused")


def medians(runs: list[dict]) -> dict:
    """(peer, connections) -> field -> median."""
    keys = dict.fromkeys((run["peer"], run["connections"]) for run in runs)
    fields = ("rps", "p50_us", "p99_us", "cpu_us_per_call", "rss_mib")
    return {
        key: {f: statistics.median(run[f] for run in runs if (run["peer"], run["connections"]) == key) for f in fields}
        for key in keys
    }


def tables(middle: dict, idle: dict):
    for connections in CONNECTIONS:
        print(f"\n{connections} connection{'s' if connections > 1 else ''}")
        print(f"{'peer':<16}{'req/s':>10}{'p50 µs':>10}{'p99 µs':>10}{'CPU µs/call':>13}{'RSS MiB':>10}{'idle MiB':>10}")
        for (name, at), row in middle.items():
            if at == connections:
                print(f"{name:<16}{row['rps']:>10.0f}{row['p50_us']:>10.0f}{row['p99_us']:>10.0f}"
                      f"{row['cpu_us_per_call']:>13.1f}{row['rss_mib']:>10.1f}{idle[name]:>10.1f}")


def figures(runs: list[dict], idle: dict) -> dict:
    middle = medians(runs)
    ours, theirs = middle["toolgate", 32], middle["envoy", 32]
    tables(middle, idle)
    return {
        "cpu_us_per_call_32": ours["cpu_us_per_call"],
        "cpu_vs_envoy_32": round(ours["cpu_us_per_call"] / theirs["cpu_us_per_call"], 3),
        "rps_32": round(ours["rps"]),
        "rps_vs_envoy_32": round(ours["rps"] / theirs["rps"], 3),
        "rps_vs_mcp_proxy_32": round(ours["rps"] / middle["mcp-proxy", 32]["rps"], 3),
        "added_p50_us_1": round(middle["toolgate", 1]["p50_us"] - middle["direct", 1]["p50_us"]),
        "rss_idle_mib": round(idle["toolgate"], 1),
        "rss_loaded_mib": round(max(run["rss_mib"] for run in runs if run["peer"] == "toolgate"), 1),
    }


def run(rounds: int, seconds: int, build: bool) -> tuple[dict, list[dict], dict]:
    peers.wrk()
    if build:
        peers.build()
    with tempfile.TemporaryDirectory(prefix="toolgate-bench-") as folder:
        bench = peers.Bench(pathlib.Path(folder))
        try:
            direct = bench.direct()
            gates = [bench.toolgate(direct.url), bench.toolgate(None)]
            idle = {gate.name: gate.server.rss_mib() for gate in gates}
            everyone = [direct, *gates, bench.envoy(direct.url), bench.mcp_proxy(direct.url)]
            idle |= {peer.name: peer.server.rss_mib() for peer in everyone if peer.name not in idle}
            for peer in everyone:
                peers.check(peer)
                measure(peer, 32, 1)  # warm: caches, connections, allocators
            runs = []
            # Rounds are interleaved, so that what else the machine does meets every peer alike.
            for number in range(rounds):
                for connections in CONNECTIONS:
                    for peer in everyone:
                        runs.append(measure(peer, connections, seconds))
                        print(number, json.dumps(runs[-1]), flush=True)
            for gate in gates:
                audited(gate, sum(run["calls"] for run in runs if run["peer"] == gate.name))
        finally:
            bench.stop()
    return figures(runs, idle), runs, idle


def versus(other: pathlib.Path, rounds: int, seconds: int, build: bool):
    """Two builds of the gateway, interleaved, over HTTP and over stdio."""
    peers.wrk()
    if build:
        peers.build()
    with tempfile.TemporaryDirectory(prefix="toolgate-bench-") as folder:
        bench = peers.Bench(pathlib.Path(folder))
        try:
            direct = bench.direct()
            pairs = [
                (bench.toolgate(upstream), bench.toolgate(upstream, "other", other)) for upstream in (direct.url, None)
            ]
            idle = {peer.name: peer.server.rss_mib() for pair in pairs for peer in pair}
            for peer in (peer for pair in pairs for peer in pair):
                peers.check(peer)
                measure(peer, 32, 1)
            runs = []
            for number in range(rounds):
                for connections in CONNECTIONS:
                    for ours, theirs in pairs:
                        # Who goes first alternates, so that neither always meets a machine that the other has warmed.
                        for peer in (ours, theirs) if number % 2 else (theirs, ours):
                            runs.append(measure(peer, connections, seconds))
                            print(number, json.dumps(runs[-1]), flush=True)
        finally:
            bench.stop()
    middle = medians(runs)
    tables(middle, idle)
    print()
    ratios = {}
    for ours, theirs in pairs:
        for at in CONNECTIONS:
            ratios[ours.name, at] = middle[ours.name, at]["cpu_us_per_call"] / middle[theirs.name, at]["cpu_us_per_call"]
            print(f"{ours.name}, {at} connections: {ratios[ours.name, at]:.3f} times the other's CPU per call")
    if max(ratios.values()) > REGRESSION:
        raise SystemExit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "check", "versus"])
    parser.add_argument("program", nargs="?", type=pathlib.Path, help="of versus: the other program")
    parser.add_argument("--rounds", type=int, help="default: 5 for run, 3 for check")
    parser.add_argument("--seconds", type=int, help="of one measurement; default: 3 for run, 2 for check")
    parser.add_argument("--no-build", action="store_true", help="measure what target/release holds")
    arguments = parser.parse_args()
    if (arguments.what == "versus") != (arguments.program is not None):
        parser.error("versus, and nothing else, takes a program")
    if arguments.program:
        return versus(arguments.program.absolute(), arguments.rounds or 5, arguments.seconds or 3, not arguments.no_build)
    short = arguments.what == "check"
    now, runs, idle = run(arguments.rounds or (3 if short else 5), arguments.seconds or (2 if short else 3), not arguments.no_build)
    print("\n" + json.dumps(now, indent=2))
    recorded = RESULTS / "hot_path.json"
    if not short:
        RESULTS.mkdir(exist_ok=True)
        recorded.write_text(json.dumps(now | machine(), indent=2) + "\n")
        when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        raw = {"when": when, **machine(), "idle_rss_mib": idle, "runs": runs}
        lines = json.dumps(raw, indent=1)
        (RESULTS / "hot_path.runs.json").write_text(lines + "\n")
        return
    before = json.loads(recorded.read_text())
    off = [name for name in RATIOS if abs(now[name] / before[name] - 1) > TOLERANCE]
    for name in RATIOS:
        print(f"{name}: {now[name]} now, {before[name]} recorded{'  <- off by more than 20 %' if name in off else ''}")
    if off:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
