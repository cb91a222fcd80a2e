"""The manifests of the soak and their edits. Writes files; keeps every state that was in force, with its time."""

import copy
import datetime
import json
import os
import pathlib
import random
import sys
import threading
import time

import oracle

API = "toolgate.dev/v1alpha1"
HERE = pathlib.Path(__file__).resolve().parent
IDENTITIES = {
    "ada": {"subject": "ada@example.com", "groups": ["engineering"], "claims": {"department": "platform"}},
    "bob": {"subject": "bob@example.com", "groups": ["operations", "engineering"], "scopes": ["mcp:deploy"]},
    "cy": {"subject": "cy@example.com", "groups": ["operations"], "claims": {"department": "sales"}},
    "eve": {"subject": "eve@example.com", "groups": [], "scopes": ["mcp:read"]},
}
SUBJECTS = [
    {"kind": "Group", "name": "engineering"},
    {"kind": "Group", "name": "operations"},
    {"kind": "User", "name": "ada@example.com"},
    {"kind": "User", "name": "eve@example.com"},
    {"kind": "Scope", "name": "mcp:deploy"},
    {"kind": "Claim", "claim": "department", "values": ["platform", "sales"]},
]
CALM_TOOLS = ["echo", "read", "write", "slow", "stream", "garbage"]
ROLES = ["r0", "r1", "r2", "r3", "r4"]


def arguments(dice: random.Random, nonce: str) -> dict:
    made = {"nonce": nonce}
    if dice.random() < 0.9:
        made["env"] = dice.choice(["dev", "staging", "production"])
    if dice.random() < 0.9:
        made["n"] = dice.choice([0, 3, 5, 7, 12, "5"])
    if dice.random() < 0.7:
        made["path"] = dice.choice(["/data", "/data/a", "/data/../etc", "/database", "/etc/passwd", "data/a", "/data//a", "/srv/x"])
    return made


def window(dice: random.Random) -> dict:
    """A time window whose edges are an hour away at least, so that no run meets one."""
    now = datetime.datetime.now(datetime.timezone.utc)
    clock = lambda hours: (now + datetime.timedelta(hours=hours)).strftime("%H:%M")  # noqa: E731
    start, end = dice.choice([(-2, 2), (2, 4), (-4, -2), (-12, 8)])
    made = {"start": clock(start), "end": clock(end), "timeZone": "Etc/UTC"}
    if dice.random() < 0.5:
        made["days"] = [day for day in oracle.DAYS if dice.random() < 0.7] or ["Mon"]
    return made


def rule(dice: random.Random) -> dict:
    made = {"effect": "Allow" if dice.random() < 0.75 else "Deny"}
    made["servers"] = dice.choice([["calm"], ["wild"], ["web"], ["w*"], ["*"], ["calm", "web"]])
    kind = dice.random()
    if kind < 0.85:
        made["tools"] = dice.choice([["echo"], ["*"], ["r*", "write"], ["s*"], ["echo", "slow", "stream"], ["die", "hang"]])
    if kind > 0.7:
        made["toolSelector"] = {"annotations": {"readOnly": dice.random() < 0.7}}
    if dice.random() < 0.4:
        conditions = [
            {"path": "/env", "in": dice.choice([["dev"], ["dev", "staging"], ["production"]])},
            {"path": "/n", "in": [3, 5, "5"]},
            {"path": "/n", "minimum": 3, "maximum": 7},
            {"path": "/path", "below": dice.choice([["/data"], ["/data", "/srv"]])},
        ]
        made["arguments"] = dice.sample(conditions, dice.choice([1, 1, 2]))
    if dice.random() < 0.2:
        made["timeWindow"] = window(dice)
    if dice.random() < 0.3:
        parts = [
            ("claim_is", "department", "platform"),
            ("has_group", "operations"),
            ("subject_is", "ada@example.com"),
            ("argument_is", "env", "dev"),
            ("argument_at_most", "n", 5),
        ]
        made["expression"] = dice.sample(parts, dice.choice([1, 2]))
    return made


def role(dice: random.Random, name: str) -> dict:
    made = {"rules": [rule(dice) for _ in range(dice.choice([1, 2, 3]))]}
    made["subjects"] = dice.sample(SUBJECTS, dice.choice([1, 1, 2]))
    older = ROLES[: ROLES.index(name)]  # Inherits only from those before it: no circle.
    if older and dice.random() < 0.5:
        made["inherits"] = [{"name": dice.choice(older)}]
    return made


def manifest(kind: str, name: str, spec: dict) -> str:
    spec = copy.deepcopy(spec)
    for one in spec.get("rules", []):
        if expression := one.pop("expression", None):
            one["when"] = " && ".join(map(oracle.cel, expression))
    return json.dumps({"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}, indent=1)


class State:
    """A policy and when it was in force, on the monotonic clock."""

    def __init__(self, policy: oracle.Policy, what: str):
        self.policy, self.what = policy, what
        self.begun = time.monotonic()  # when its file was begun to be written
        self.written = self.begun  # when it was there in full
        self.replaced = None  # when its successor was there in full


class World:
    def __init__(self, folder: pathlib.Path, seed: int, web_port: int, journal: pathlib.Path):
        self.folder, self.dice, self.lock = folder, random.Random(seed), threading.Lock()
        server = [sys.executable, str(HERE / "stdio_server.py")]

        def stdio(sessions: str) -> dict:
            env = [{"name": "SOAK_JOURNAL", "value": str(journal)}, {"name": "GENERATION", "value": "0"}]
            container = {"image": "soak", "transport": "Stdio", "command": server, "sessions": sessions, "env": env}
            return {"source": {"container": container}}

        self.servers = {
            "calm": stdio("Shared"),
            "wild": {**stdio("PerClient"), "registration": "Auto"},
            "web": {"source": {"remote": {"url": f"http://127.0.0.1:{web_port}/mcp"}}},
        }
        self.tools = {}
        for name, offered in (("calm", CALM_TOOLS), ("wild", ["read"]), ("web", CALM_TOOLS + ["die"])):
            for tool in offered:
                spec = {"serverRef": {"name": name}, "toolName": tool, "annotations": {"readOnly": tool in ("echo", "read")}}
                self.tools[f"{name}-{tool}"] = spec
        self.roles = {name: role(self.dice, name) for name in ROLES}
        # One role that stays as it is: some calls succeed in every state.
        self.roles["base"] = {
            "subjects": [{"kind": "Group", "name": "engineering"}],
            "rules": [{"effect": "Allow", "servers": ["*"], "tools": ["echo", "s*", "die", "hang"]}],
        }
        for kind, objects in (("McpServer", self.servers), ("McpTool", self.tools), ("McpRole", self.roles)):
            for name, spec in objects.items():
                (folder / f"{kind}-{name}.yaml").write_text(manifest(kind, name, spec))
        overlay = {
            "listen": "127.0.0.1:0",
            "identities": IDENTITIES,
            "servers": {name: {"command": server} for name in ("calm", "wild")},
        }
        (folder / "toolgate.local.yaml").write_text(json.dumps(overlay, indent=1))
        self.states = [State(self.policy(), "start")]

    def policy(self) -> oracle.Policy:
        return oracle.Policy(copy.deepcopy(self.roles), copy.deepcopy(self.tools), copy.deepcopy(self.servers))

    def write(self, file: pathlib.Path, text: str):
        """As editors do (a new file, a rename), or as `cp` does: there is a moment in which half of it is there."""
        if self.dice.random() < 0.7:
            draft = file.with_suffix(".draft")
            draft.write_text(text)
            os.replace(draft, file)
            return
        with file.open("w") as out:
            out.write(text[: len(text) // 2])
            out.flush()
            time.sleep(0.02)
            out.write(text[len(text) // 2 :])

    def edit(self) -> str:
        """Changes one object, and what the oracle believes from now on."""
        kind = self.dice.random()
        if kind < 0.70:
            name = self.dice.choice(ROLES)
            self.roles[name] = role(self.dice, name)
            return self.put("McpRole", name, self.roles[name], f"role {name} rewritten")
        if kind < 0.82:
            name = self.dice.choice(list(self.tools))
            spec = self.tools[name]
            spec["lifecycle"] = "Active" if spec.get("lifecycle") == "Disabled" else "Disabled"
            return self.put("McpTool", name, spec, f"tool {name} {spec['lifecycle']}")
        if kind < 0.92:
            # A broken edit: the last good version of the object stays in force, and is what we go on to believe.
            name = self.dice.choice(ROLES)
            broken = manifest("McpRole", name, {**role(self.dice, name), "rulez": []})
            if self.dice.random() < 0.5:
                broken = broken[: len(broken) // 2]
            self.write(self.folder / f"McpRole-{name}.yaml", broken)
            return f"role {name} broken"
        name = self.dice.choice(["calm", "wild"])
        env = self.servers[name]["source"]["container"]["env"]
        env[1]["value"] = str(int(env[1]["value"]) + 1)
        return self.put("McpServer", name, self.servers[name], f"server {name} restarted")

    def put(self, kind: str, name: str, spec: dict, what: str) -> str:
        state = State(self.policy(), what)
        with self.lock:
            self.states.append(state)
        self.write(self.folder / f"{kind}-{name}.yaml", manifest(kind, name, spec))
        now = time.monotonic()
        with self.lock:
            state.written = now
            self.states[-2].replaced = now
            while self.states[1].replaced and self.states[1].replaced < now - 60:
                self.states.pop(0)
        return what

    def in_force(self, start: float, end: float, grace: float) -> list[State]:
        """The states that may have decided about a call: an edit is in force `grace` seconds after it was written."""
        with self.lock:
            return [s for s in self.states if s.begun <= end and (s.replaced is None or start <= s.replaced + grace)]
