"""The interface of the tests to the cluster: commands, waits, the state that each file begins with, and the report of a
failure. Runs beside the node (run.py and suite.py see to that). Knows no expectation: those are in the checks."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from images import ROOT, UP, run

AGENTS = "agents"
SYSTEM = "toolgate-system"
EXAMPLE = ROOT / "examples/kubernetes-quickstart"
OPERATOR = "deployment/toolgate-operator"
LEASE = "toolgate-operator"
# One line for each condition, as a template of kubectl's.
CONDITIONS = (
    "{range .items[*]}{.metadata.name} generation {.metadata.generation}, enforcement {.status.enforcement}{'\\n'}"
    "{range .status.conditions[*]}  {.type}={.status} {.reason} of {.observedGeneration} since {.lastTransitionTime}: "
    "{.message}{'\\n'}{end}{end}"
)
STATE = pathlib.Path(os.environ.get("TOOLGATE_TEST_STATE") or "/var/tmp/toolgate-test")


def note(text):
    """Prints a figure that a test has seen."""
    print(f"  {text}", file=sys.stderr, flush=True)


def kubectl(*arguments, text=None):
    """Runs kubectl and returns what it printed; raises with what it said where it fails. `text` is its input."""
    return run("kubectl", *arguments, input=text)


def helm(*arguments):
    """Runs Helm in the namespace of the operator."""
    return run("helm", "--namespace", SYSTEM, *arguments, cwd=ROOT)


def component(action, name):
    """`stop` or `start` a part of the control plane, with its address and data."""
    run(UP, action, name)


def crash(name):
    """Kills a part of the control plane; `component("start", name)` brings it back."""
    os.killpg(int((STATE / "pid" / name).read_text()), signal.SIGKILL)


def get(kind, name=None, namespace=AGENTS, selector=None):
    """An object, or with no name a list of them."""
    command = ["-n", namespace, "get", kind, *([name] if name else []), "-o", "json"]
    found = json.loads(kubectl(*command, *(["-l", selector] if selector else [])))
    return found if name else found["items"]


def apply(manifest, namespace=AGENTS):
    """Applies YAML, or an object."""
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    return kubectl("-n", namespace, "apply", "-f", "-", text=text)


def patch(kind, name, change, namespace=AGENTS):
    """Merges a change into an object and returns the object."""
    command = ["-n", namespace, "patch", kind, name, "--type", "merge", "-p", json.dumps(change), "-o", "json"]
    return json.loads(kubectl(*command))


def wait(what, test, seconds=60, every=0.1):
    """Waits until `test` returns something true, and returns that. A command that fails in it is tried again."""
    end = time.monotonic() + seconds
    while True:
        problem = None
        try:
            if found := test():
                return found
        except RuntimeError as error:  # kubectl failed: the API server may be on its way back
            problem = error
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not so after {seconds} s" + (f"; {problem}" if problem else ""))
        time.sleep(every)


def condition(kind, name, of, namespace=AGENTS):
    """A condition of an object, if it speaks of the object's current generation; else nothing."""
    found = get(kind, name, namespace)
    for one in found.get("status", {}).get("conditions", []):
        if one["type"] == of and one.get("observedGeneration") == found["metadata"]["generation"]:
            return one
    return None


def wait_condition(kind, name, of, status="True", namespace=AGENTS, seconds=120):
    """Waits until a condition that speaks of the current generation has a status, and returns the condition."""
    seen = []

    def holds():
        seen[:] = [condition(kind, name, of, namespace)]
        return seen[0] if seen[0] and seen[0]["status"] == status else None

    try:
        return wait(f"{of}={status} of {kind} {name}", holds, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {seen}") from None


def pods(server, namespace=AGENTS):
    """The pods of a server that are not on their way out."""
    found = get("pod", namespace=namespace, selector=f"toolgate.dev/server={server}")
    return [pod for pod in found if not ending(pod)]


def ending(pod):
    """Whether a pod is on its way out."""
    return "deletionTimestamp" in pod["metadata"]


def ready(pod):
    """Whether a pod is Ready."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def addresses(server, namespace=AGENTS):
    """The addresses of a server's Ready pods."""
    return [pod["status"]["podIP"] for pod in pods(server, namespace) if ready(pod)]


def conditions(namespace=AGENTS):
    """Every condition in a namespace: {(kind, name, type): (status, reason, when it became so)}."""
    return {
        (one["kind"], one["metadata"]["name"], condition["type"]): tuple(
            condition[part] for part in ("status", "reason", "lastTransitionTime")
        )
        for one in get("mcps,mcpt,mcpr,mcpg", namespace=namespace)
        for condition in one.get("status", {}).get("conditions", [])
    }


def enforcement(server):
    """What the status of a server says about who enforces its policy."""
    return get("mcpserver", server)["status"].get("enforcement", {})


def lives(*namespaces):
    """Every container: {(pod, its uid, container): how often it was started again}."""
    return {
        (pod["metadata"]["name"], pod["metadata"]["uid"], container["name"]): container["restartCount"]
        for namespace in namespaces
        for pod in get("pod", namespace=namespace)
        for part in ("containerStatuses", "initContainerStatuses")
        for container in pod["status"].get(part, [])
    }


def processes(pod, program):
    """The ids, on this machine, of a pod's processes that run a program."""
    mark, found = pod["metadata"]["uid"], []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")[0].decode()
            if pathlib.Path(command).name == program and mark in (process / "cgroup").read_text().replace("_", "-"):
                found.append(int(process.name))
        except OSError:
            continue  # it has ended
    return found


def operators():
    """The operator's pods that are not on their way out."""
    found = get("pod", namespace=SYSTEM, selector="app.kubernetes.io/name=toolgate")
    return [pod for pod in found if not ending(pod)]


def leader():
    """The name of the pod that leads."""
    holder = get("lease", LEASE, SYSTEM)["spec"].get("holderIdentity") or ""
    return next((pod["metadata"]["name"] for pod in operators() if pod["metadata"]["name"] in holder), None)


def released(name):
    """Whether a release of Helm's is installed."""
    return name in helm("list", "--short").split()


def quickstart():
    """What each file begins with: both charts as released, the example applied, and every server of it Ready. Quick
    where that is so already."""
    if not released("toolgate-crds"):
        helm("install", "toolgate-crds", "charts/toolgate-crds", "--create-namespace")
    if not released("toolgate"):
        helm("install", "toolgate", "charts/toolgate", "--wait")
    elif json.loads(helm("get", "values", "toolgate", "--output", "json")):
        helm("upgrade", "toolgate", "charts/toolgate", "--reset-values", "--wait")
    kubectl("apply", "-k", EXAMPLE)
    kubectl("-n", AGENTS, "wait", "--for=condition=Ready", "mcpserver,mcprole,mcptool", "--all", "--timeout=120s")
    # What an earlier test took away ends only after its gateway has drained.
    wait("no pod is on its way out", lambda: not any(map(ending, get("pod", namespace=AGENTS) + get("pod", namespace=SYSTEM))))


def clean():
    """An empty cluster, as before the first installation."""
    if kubectl("get", "crd", "mcpservers.toolgate.dev", "--ignore-not-found"):
        kubectl("delete", "-k", EXAMPLE, "--ignore-not-found", "--timeout=120s")
    for release in ("toolgate", "toolgate-crds"):
        if released(release):
            helm("uninstall", release, "--wait")
    crds = [f"{kind}.toolgate.dev" for kind in ("mcpservers", "mcptools", "mcproles", "mcpgateways")]
    kubectl("delete", "crd", "--ignore-not-found", *crds, "--timeout=60s")
    kubectl("delete", "namespace", "--ignore-not-found", SYSTEM, AGENTS, "--timeout=120s")


def diagnose(out):
    """Prints what helps to understand a failure. Never raises, and takes seconds even where nothing answers."""

    def show(title, *command, last=60):
        print(f"\n--- {title}", file=out)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            lines = (done.stdout + done.stderr).rstrip().splitlines()[-last:]
            print("\n".join(line[:600] for line in lines), file=out)
        except (OSError, subprocess.TimeoutExpired) as error:
            print(error, file=out)

    quick = ("kubectl", "--request-timeout=5s")
    show("pods", *quick, "get", "pods", "-A", "-o", "wide")
    show("objects", *quick, "get", "mcps,mcpt,mcpr,mcpg", "-A")
    show("conditions of McpServers", *quick, "get", "mcps", "-A", "-o", f"jsonpath={CONDITIONS}")
    show("events", *quick, "get", "events", "-A", "--sort-by=.lastTimestamp", last=40)
    for namespace in (SYSTEM, AGENTS):
        command = [*quick, "-n", namespace]
        with contextlib.suppress(subprocess.TimeoutExpired):
            listed = subprocess.run([*command, "get", "pods", "-o", "name"], capture_output=True, text=True, timeout=10)
            for pod in listed.stdout.split():
                options = ("--all-containers", "--prefix", "--tail=15")
                show(f"log of {pod} in {namespace}", *command, "logs", pod, *options)
    for name in ("kubelet", "kube-apiserver"):
        show(f"warnings of {name}", "grep", "^[WE]", str(STATE / "log" / name), last=10)
    out.flush()
