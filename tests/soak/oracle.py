"""What the manifests mean, written a second time and from the documentation alone: the judge of every decision.

Nothing here knows how Toolgate decides. It reads the same objects, rule by rule, without indexes or caches.
"""

import datetime
import enum
import fnmatch

DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


class Verdict(enum.Enum):
    ALLOW = "allow"
    DENY = "deny"  # refused, but the caller may see that the tool exists
    UNKNOWN = "unknown"  # as if it did not exist


class Unknowable(Exception):
    """An expression that fails to evaluate."""


# Expressions: tuples that `cel` renders for the manifest and `holds` evaluates. Those in ARGUMENT read arguments.
ARGUMENT = {"argument_is", "argument_at_most"}


def cel(expression: tuple) -> str:
    match expression:
        case ("claim_is", name, value):
            return f'identity.claims.{name} == "{value}"'
        case ("has_group", name):
            return f'"{name}" in identity.groups'
        case ("subject_is", name):
            return f'identity.subject == "{name}"'
        case ("argument_is", name, value):
            return f'arguments.{name} == "{value}"'
        case ("argument_at_most", name, value):
            return f"arguments.{name} <= {value}"
    raise ValueError(expression)


def holds(expression: tuple, identity: dict, arguments: dict) -> bool:
    match expression:
        case ("claim_is", name, value):
            if name not in identity.get("claims", {}):
                raise Unknowable
            return identity["claims"][name] == value
        case ("has_group", name):
            return name in identity.get("groups", [])
        case ("subject_is", name):
            return identity["subject"] == name
        case ("argument_is", name, value):
            if name not in arguments:
                raise Unknowable
            return arguments[name] == value
        case ("argument_at_most", name, value):
            if not isinstance(arguments.get(name), int):
                raise Unknowable
            return arguments[name] <= value
    raise ValueError(expression)


def conjunction(parts: list, identity: dict, arguments: dict) -> bool:
    """CEL's `&&`: one false part decides, even beside a part that fails."""
    failed = False
    for part in parts:
        try:
            if not holds(part, identity, arguments):
                return False
        except Unknowable:
            failed = True
    if failed:
        raise Unknowable
    return True


def argument_rule(rule: dict, arguments: dict) -> bool:
    """One condition on one argument: a missing path or another type fails, nothing is converted."""
    value = arguments.get(rule["path"].removeprefix("/"))
    if value is None or isinstance(value, bool):
        return False
    if "in" in rule and not any(type(value) is type(one) and value == one for one in rule["in"]):
        return False
    if "minimum" in rule and not (isinstance(value, (int, float)) and value >= rule["minimum"]):
        return False
    if "maximum" in rule and not (isinstance(value, (int, float)) and value <= rule["maximum"]):
        return False
    if "below" in rule:
        if not isinstance(value, str):
            return False
        segments = value.split("/")
        if not value.startswith("/") or "\\" in value or "\0" in value or any(s in ("", ".", "..") for s in segments[1:]):
            return False
        if not any(value == folder or value.startswith(folder + "/") for folder in rule["below"]):
            return False
    return True


def in_window(window: dict, now: datetime.datetime) -> bool:
    """All windows of the soak are in UTC. One that wraps over midnight belongs to the day on which it starts."""
    days = window.get("days", DAYS)
    minute = now.hour * 60 + now.minute
    start, end = ((lambda t: int(t[:2]) * 60 + int(t[3:]))(window[key]) for key in ("start", "end"))
    today, yesterday = DAYS[now.weekday()], DAYS[now.weekday() - 1]
    if start <= end:
        return today in days and start <= minute < end
    return (today in days and minute >= start) or (yesterday in days and minute < end)


class Policy:
    """One state of the manifests: roles, tools and servers as dictionaries by name."""

    def __init__(self, roles: dict, tools: dict, servers: dict):
        self.roles, self.tools, self.servers = roles, tools, servers

    def roles_of(self, identity: dict) -> set:
        def is_about(subject: dict) -> bool:
            match subject["kind"]:
                case "User":
                    return subject["name"] == identity["subject"]
                case "Group":
                    return subject["name"] in identity.get("groups", [])
                case "Scope":
                    return subject["name"] in identity.get("scopes", [])
                case "Claim":
                    return identity.get("claims", {}).get(subject["claim"]) in subject["values"]
            raise ValueError(subject)

        names, todo = set(), [n for n, role in self.roles.items() if any(map(is_about, role.get("subjects", [])))]
        while todo:
            name = todo.pop()
            if name not in names:
                names.add(name)
                todo += [parent["name"] for parent in self.roles[name].get("inherits", [])]
        return names

    def declared(self, server: str, tool: str) -> dict | None:
        return next((t for t in self.tools.values() if (t["serverRef"]["name"], t["toolName"]) == (server, tool)), None)

    def exists(self, server: str, tool: str) -> bool:
        declared = self.declared(server, tool)
        if declared is None:
            return self.servers[server].get("registration") == "Auto"
        return declared.get("lifecycle") != "Disabled"

    def names(self, rule: dict, server: str, tool: str) -> bool:
        """Whether a rule is about this tool of this server."""
        if not any(fnmatch.fnmatchcase(server, glob) for glob in rule["servers"]):
            return False
        if any(fnmatch.fnmatchcase(tool, glob) for glob in rule.get("tools", [])):
            return True
        declared, wanted = self.declared(server, tool), rule.get("toolSelector")
        if wanted is None or declared is None:
            return False
        believed = {"readOnly": False, **declared.get("annotations", {})}
        return all(believed.get(key) == value for key, value in wanted["annotations"].items())

    def rules(self, identity: dict, server: str, tool: str, now: datetime.datetime) -> list:
        """The rules that are about this tool for this caller at this time."""
        rules = [rule for name in self.roles_of(identity) for rule in self.roles[name]["rules"]]
        rules = [rule for rule in rules if self.names(rule, server, tool)]
        return [rule for rule in rules if "timeWindow" not in rule or in_window(rule["timeWindow"], now)]

    def visible(self, identity: dict, server: str, tool: str, now: datetime.datetime) -> bool:
        """Whether some arguments could be allowed now."""
        if not self.exists(server, tool):
            return False
        possible = False
        for rule in self.rules(identity, server, tool, now):
            known = [part for part in rule.get("expression", []) if part[0] not in ARGUMENT]
            open_ended = bool(rule.get("arguments")) or len(known) < len(rule.get("expression", []))
            if rule["effect"] == "Deny":
                try:
                    certain = conjunction(known, identity, {})
                except Unknowable:
                    certain = True  # What fails to evaluate denies.
                if certain and not open_ended:
                    return False
            else:
                try:
                    possible |= conjunction(known, identity, {})
                except Unknowable:
                    pass
        return possible

    def decide(self, identity: dict, server: str, tool: str, arguments: dict, now: datetime.datetime) -> Verdict:
        allowed = denied = False
        if self.exists(server, tool):
            for rule in self.rules(identity, server, tool, now):
                if not all(argument_rule(one, arguments) for one in rule.get("arguments", [])):
                    continue
                try:
                    matches = conjunction(rule.get("expression", []), identity, arguments)
                except Unknowable:
                    matches = rule["effect"] == "Deny"
                allowed |= matches and rule["effect"] == "Allow"
                denied |= matches and rule["effect"] == "Deny"
        if allowed and not denied:
            return Verdict.ALLOW
        return Verdict.DENY if self.visible(identity, server, tool, now) else Verdict.UNKNOWN
