"""What is called, by whom, and what policy must say to it."""

import json
import pathlib
import random

IDENTITIES = 64
CALLED_TOOLS = 8
DECLARED_TOOLS = 50
ROLES = 20
READ_ONLY_TOOLS = 6  # of those that are called; the others get an audit line before and one after each call
REQUESTS = 4000  # distinct ones: no answer and no decision could be cached by them
REFUSED_SHARE = 0.1


def tool(index: int) -> str:
    return f"echo_{index:02}"


def identity(index: int) -> str:
    return f"caller-{index:02}"


def body(number: int, name: str, refused: bool, noise: random.Random) -> str:
    environment = "production" if refused else noise.choice(["development", "staging"])
    arguments = {"text": f"{noise.getrandbits(128):032x}", "environment": environment, "count": noise.randrange(100)}
    call = {"name": name, "arguments": arguments}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call}, separators=(",", ":"))


def write(file: pathlib.Path, tokens: list[str], prefix: str = "") -> pathlib.Path:
    """One request a line, the same calls for every peer; `-` stands for no token."""
    noise = random.Random(7)
    with file.open("w") as out:
        for number in range(REQUESTS):
            refused = noise.random() < REFUSED_SHARE
            name = prefix + tool(noise.randrange(CALLED_TOOLS))
            token = tokens[noise.randrange(len(tokens))] if len(tokens) > 1 else tokens[0]
            out.write(f"{token}\t{body(number, name, refused, noise)}\n")
    return file


def manifests(folder: pathlib.Path, url: str | None, command: list[str] | None):
    """A folder for `toolgate local`: one server by URL or by command, 50 tools, 20 roles, 64 identities."""
    folder.mkdir(parents=True, exist_ok=True)

    def item(kind: str, name: str, spec: dict) -> str:
        return json.dumps({"apiVersion": "toolgate.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})

    source = (
        {"remote": {"url": url}}
        if url
        else {"container": {"image": "echo", "transport": "Stdio", "command": command, "sessions": "Shared"}}
    )
    objects = [item("McpServer", "up", {"source": source})]
    for index in range(DECLARED_TOOLS):
        annotations = {"readOnly": index < READ_ONLY_TOOLS}
        spec = {"serverRef": {"name": "up"}, "toolName": tool(index), "annotations": annotations}
        objects.append(item("McpTool", tool(index).replace("_", "-"), spec))
    for index in range(ROLES):
        called = [tool(at) for at in range(CALLED_TOOLS)]
        own = [tool(CALLED_TOOLS + (index * 2 + at) % (DECLARED_TOOLS - CALLED_TOOLS)) for at in range(2)]
        rules = [
            {"effect": "Allow", "servers": ["up"], "tools": own},
            {
                "effect": "Allow",
                "servers": ["up"],
                "tools": called,
                "arguments": [{"path": "/environment", "in": ["development", "staging"]}],
            },
            {"effect": "Deny", "servers": ["up"], "tools": ["drop_*", "delete_*"]},
        ]
        spec = {"subjects": [{"kind": "Group", "name": f"team-{index:02}"}], "rules": rules}
        objects.append(item("McpRole", f"role-{index:02}", spec))
    # JSON documents are YAML.
    (folder / "policy.yaml").write_text("\n---\n".join(objects) + "\n")
    overlay = {
        "listen": "127.0.0.1:0",
        "identities": {
            identity(index): {"subject": f"{identity(index)}@example.com", "groups": [f"team-{index % ROLES:02}"]}
            for index in range(IDENTITIES)
        },
    }
    if command:
        overlay["servers"] = {"up": {"command": command}}
    (folder / "toolgate.local.yaml").write_text(json.dumps(overlay, indent=1))
