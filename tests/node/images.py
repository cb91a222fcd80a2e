"""Makes the images of the tests and hands them to the node. Owns what is in them; knows no test.

Nothing is pulled: our image is packed from the programs in `target/debug` with the libraries that they ask for, and the
two servers of the example are built from their pinned source, once."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
UP = ROOT / "tests/cluster/up"
CACHE = pathlib.Path(os.environ.get("TOOLGATE_TEST_CACHE") or pathlib.Path.home() / ".cache/toolgate-test")
TOOLGATE = "ghcr.io/toolgate/toolgate:0.1.0"
SDK = "1.8.0"
SERVERS = {f"localhost/mcp-{server}:{SDK}": server for server in ("memory", "everything")}


def run(*command, **options):
    """Runs a program and returns what it printed; raises with what it said where it fails."""
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def pack(name, entrypoint, *paths):
    """Packs files, each as `PATH` or `PATH:DESTINATION`, into an image and hands it to the node."""
    run(UP, "image", name, entrypoint, *paths)


def target():
    """Where cargo puts what it builds."""
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")


def programs():
    """Our programs, by the path that they have in the image. The shim is the static one."""
    built = {
        "/toolgate-operator": target() / "debug/toolgate-operator",
        "/toolgate-gateway": target() / "debug/toolgate-gateway",
        "/toolgate-shim": target() / f"{os.uname().machine}-unknown-linux-gnu/debug/toolgate-shim",
    }
    missing = [str(program) for program in built.values() if not program.is_file()]
    if missing:
        raise RuntimeError(f"not built, `make node-programs` does it: {', '.join(missing)}")
    return built


def libraries(program):
    """What the loader maps for a program, as `FILE:PATH`, with the loader itself."""
    said = run("ldd", program)
    found = re.findall(r"(/\S+) \(0x", said)
    if not found:
        raise RuntimeError(f"ldd {program}: {said}")
    return {f"{os.path.realpath(path)}:{path}" for path in found}


def toolgate(name=TOOLGATE, built=None):
    """Packs our image as the Containerfile lays it out. `built`: other programs, by their path in the image."""
    built = built or programs()
    with tempfile.TemporaryDirectory() as folder:
        paths, needed = [], set()
        for path, program in built.items():
            stripped = pathlib.Path(folder, pathlib.Path(path).name)
            run("strip", "--strip-debug", "-o", stripped, program)
            paths.append(f"{stripped}:{path}")
            if path != "/toolgate-shim":  # it must start in an image without a C library
                needed |= libraries(program)
        pack(name, "/toolgate-operator", *paths, *sorted(needed))


def server_program(server):
    """The path of a server of the example, which others wrote. Builds it where it is not there yet."""
    folder = CACHE / f"mcp-servers-{SDK}"
    program = folder / server
    if not program.exists():
        # Aside: a program appears under its name only when it is whole.
        aside = folder / f".{server}"
        package = f"github.com/modelcontextprotocol/go-sdk/examples/server/{server}@v{SDK}"
        environment = {**os.environ, "GOBIN": str(aside), "CGO_ENABLED": "0"}
        run("go", "install", "-trimpath", package, env=environment)
        (aside / server).rename(program)
        shutil.rmtree(aside)
    return program


def servers():
    """Packs the two servers of the example."""
    for image, server in SERVERS.items():
        pack(image, f"/{server}", server_program(server))


def everything():
    """Packs all images that `docs/kubernetes.md` lets its reader build."""
    toolgate()
    servers()
