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
    SCOPE = "scope"  # refused, and a scope that the token lacks would have allowed it: 403, so that clients ask for it


class Unknowable(Exception):
    """A condition that cannot be told true or false: it fails to evaluate, or its argument is missing or of another type."""


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


def all_of(parts) -> bool:
    """Conjunction: one false part decides, even beside a part that cannot be told."""
    unknowable = False
    for part in parts:
        try:
            if not part():
                return False
        except Unknowable:
            unknowable = True
    if unknowable:
        raise Unknowable
    return True


def conjunction(parts: list, identity: dict, arguments: dict) -> bool:
    return all_of([lambda part=part: holds(part, identity, arguments) for part in parts])


def one_of(options: list, value) -> bool:
    if value in [one for one in options if type(one) is type(value)]:
        return True
    if not any(type(one) is type(value) for one in options):
        raise Unknowable  # Another type: nothing is converted.
    return False


def number(value) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unknowable
    return value


def below(folders: list, value) -> bool:
    segments = value.split("/") if isinstance(value, str) else []
    if segments[:1] != [""] or "\\" in value or "\0" in value or any(s in ("", ".", "..") for s in segments[1:]):
        raise Unknowable
    return any(value == folder or value.startswith(folder + "/") for folder in folders)


def argument_rule(rule: dict, arguments: dict) -> bool:
    """One condition on one argument. A missing path or another type cannot be told: fails an Allow, denies in a Deny."""
    name = rule["path"].removeprefix("/")
    if name not in arguments:
        raise Unknowable
    value = arguments[name]
    parts = []
    if "in" in rule:
        parts.append(lambda: one_of(rule["in"], value))
    if "minimum" in rule:
        parts.append(lambda: number(value) >= rule["minimum"])
    if "maximum" in rule:
        parts.append(lambda: number(value) <= rule["maximum"])
    if "below" in rule:
        parts.append(lambda: below(rule["below"], value))
    return all_of(parts)


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
        if wanted is None or (declared is None and rule["effect"] == "Allow"):
            return False  # Nothing is granted by what nobody declared, and the worst is assumed of it.
        believed = {"readOnly": False, **(declared or {}).get("annotations", {})}
        return all(believed.get(key) == value for key, value in wanted["annotations"].items())

    def rules_at_any_time(self, identity: dict, server: str, tool: str) -> list:
        rules = [rule for name in sorted(self.roles_of(identity)) for rule in self.roles[name]["rules"]]
        return [rule for rule in rules if self.names(rule, server, tool)]

    def rules(self, identity: dict, server: str, tool: str, now: datetime.datetime) -> list:
        """The rules that are about this tool for this caller at this time."""
        rules = self.rules_at_any_time(identity, server, tool)
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
                conditions = [lambda one=one: argument_rule(one, arguments) for one in rule.get("arguments", [])]
                conditions.append(lambda rule=rule: conjunction(rule.get("expression", []), identity, arguments))
                try:
                    matches = all_of(conditions)
                except Unknowable:
                    matches = rule["effect"] == "Deny"
                allowed |= matches and rule["effect"] == "Allow"
                denied |= matches and rule["effect"] == "Deny"
        if allowed and not denied:
            return Verdict.ALLOW
        subjects = [subject for role in self.roles.values() for subject in role.get("subjects", [])]
        scopes = {subject["name"] for subject in subjects if subject["kind"] == "Scope"}
        lacking = scopes - set(identity.get("scopes", []))
        for more in [*({scope} for scope in lacking), lacking]:
            if more:
                richer = {**identity, "scopes": [*identity.get("scopes", []), *more]}
                if self.decide(richer, server, tool, arguments, now) == Verdict.ALLOW:
                    return Verdict.SCOPE
        return Verdict.DENY if self.visible(identity, server, tool, now) else Verdict.UNKNOWN
