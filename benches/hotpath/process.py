"""Processes under measurement, and the load on them."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A program that serves until it is stopped. Its output goes to a log file."""

    def __init__(self, name: str, command: list[str], log: pathlib.Path, env: dict | None = None):
        self.name, self.log = name, log
        self.child = subprocess.Popen(
            command, stdout=log.open("w"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )

    def wait_for(self, ready, seconds: float = 60):
        """Calls `ready` until it gives something, or gives up with the end of the log."""
        deadline = time.monotonic() + seconds
        while True:
            if self.child.poll() is not None:
                raise SystemExit(f"{self.name} ended with {self.child.returncode}:\n{self.log.read_text()[-4000:]}")
            try:
                if result := ready():
                    return result
            except (OSError, ValueError, urllib.error.URLError):
                pass
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.name} was not ready in {seconds:.0f} s:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.02)

    def cpu_us(self) -> float:
        """CPU time that the process has used, user and system, all threads; children are not in it."""
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_US

    def rss_mib(self) -> float:
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGINT)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


def post(url: str, token: str, body: str, refused: bool = False) -> tuple[int, str]:
    """One call as the load generator makes it: HTTP status and body."""
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-11-25",
    }
    if token != "-":
        headers["authorization"] = f"Bearer {token}"
    if refused:
        headers["x-refuse"] = "1"
    request = urllib.request.Request(url, body.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def load(script: pathlib.Path, url: str, requests: pathlib.Path, connections: int, seconds: int) -> dict:
    """Runs wrk with one thread and returns what `call.lua` reports."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "REQUESTS": str(requests)})
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    raise SystemExit(f"wrk failed:\n{done.stdout}{done.stderr}")
