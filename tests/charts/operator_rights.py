#!/usr/bin/env python3
"""Runs the real operator as the chart would, against the API server of KUBECONFIG where `admission.py` has installed
the charts: with the arguments and the ServiceAccount of the rendered Deployment, its rights and the guards. There is no
node, so pods stay Pending; everything up to them must work, and nothing may be refused. Needs HELM, and kubectl as
KUBECTL or on the path."""

import argparse
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile

from admission import OWN_NAMESPACE, ROOT, kubectl, must, until

NAMESPACE = "agents"
ACCOUNT = "toolgate-operator"
# Ways to install, and what each leaves to the operator.
WAYS = {"all namespaces": (), "one namespace": ("--set", f"watchNamespaces={{{NAMESPACE}}}")}


def free_port():
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def found(kind, *arguments):
    """The objects of a kind in the namespace of the example."""
    return json.loads(must("--namespace", NAMESPACE, "get", kind, *arguments, "-o", "json"))["items"]


def condition(one, kind):
    """A condition's status, if it speaks of the current generation."""
    for found_one in one.get("status", {}).get("conditions", []):
        if found_one["type"] == kind and found_one.get("observedGeneration") == one["metadata"]["generation"]:
            return found_one["status"]
    return None


def as_operator(folder):
    """A kubeconfig with a token of the operator's ServiceAccount and nothing else."""
    config = json.loads(must("config", "view", "--raw", "--minify", "-o", "json"))
    token = must("create", "token", ACCOUNT, "--namespace", OWN_NAMESPACE, "--duration", "1h")
    config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}]
    path = pathlib.Path(folder) / "kubeconfig"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


def start(program, folder, log):
    """Starts the program with what the Deployment says, on ports of this machine."""
    deployment = json.loads(must("--namespace", OWN_NAMESPACE, "get", "deployment", "toolgate-operator", "-o", "json"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    arguments = [re.sub(r"=0\.0\.0\.0:\d+$", lambda _: f"=127.0.0.1:{free_port()}", one) for one in container["args"]]
    environment = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    environment |= {"POD_NAME": "here", "POD_NAMESPACE": OWN_NAMESPACE, "KUBECONFIG": str(as_operator(folder))}
    return subprocess.Popen([program, *arguments], env=os.environ | environment, stdout=log, stderr=log)


def walk():
    """The life of the example, as far as there is no node."""
    names = lambda kind, *arguments: {one["metadata"]["name"] for one in found(kind, *arguments)}
    owned = ("--selector", "app.kubernetes.io/managed-by=toolgate")
    must("apply", "-k", str(ROOT / "examples/kubernetes-quickstart"))
    until("every server has its Deployment", lambda: names("deployment", *owned) == {"memory", "everything"})
    until("pods were admitted", lambda: len(found("pod", *owned)) == 3)
    for kind in ("mcpserver", "mcptool", "mcprole", "mcpgateway"):
        accepted = lambda kind=kind: all(condition(one, "Accepted") == "True" for one in found(kind))
        until(f"every {kind} is Accepted", accepted)
    for kind in ("configmap", "service", "serviceaccount", "networkpolicy", "poddisruptionbudget"):
        until(f"there is a {kind}", lambda kind=kind: found(kind, *owned))
    until("there are Events", lambda: found("events.events.k8s.io"))
    must("--namespace", NAMESPACE, "scale", "mcpserver", "everything", "--replicas=1")
    until("one pod needs no budget", lambda: not found("poddisruptionbudget", *owned))
    must("--namespace", NAMESPACE, "delete", "configmap", "everything-toolgate-boot", "toolgate-ca")
    until("what was deleted is back", lambda: {"everything-toolgate-boot", "toolgate-ca"} <= names("configmap"))
    must("--namespace", NAMESPACE, "delete", "mcpserver", "--all")
    until("nothing of the servers is left", lambda: not found("pod,deployment,service,networkpolicy", *owned))


def run(program, way):
    """What is wrong with one way to install, or nothing."""
    charts = ROOT / "charts/toolgate"
    helm = [os.environ["HELM"], "upgrade", "toolgate", charts, "--namespace", OWN_NAMESPACE, "--reset-values"]
    subprocess.run([*helm, *WAYS[way]], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder, (pathlib.Path(folder) / "log").open("w+") as log:
        operator = start(program, folder, log)
        try:
            walk()
            wrong = None if operator.poll() is None else f"the operator ended with {operator.returncode}"
        except (AssertionError, RuntimeError) as error:
            wrong = str(error)
        finally:
            operator.terminate()
            operator.wait(timeout=60)
            kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")
        log.seek(0)
        said = log.read()
        refused = [line for line in said.splitlines() if "orbidden" in line or "ValidatingAdmissionPolicy" in line]
        if refused or wrong:
            return "\n".join([wrong or "the API server refused the operator", *refused[:5], said[-2000:]])
    return None


def main():
    """Exit code 1 where the operator lacks a right, or the chart an argument."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", help="path of toolgate-operator")
    program = pathlib.Path(parser.parse_args().program).resolve()
    # What `admission.py` gave so that the guards alone decide: here RBAC decides too.
    for name in ("toolgate-test-group", "toolgate-test-operator", "toolgate-test-infrastructure"):
        must("delete", "clusterrolebinding", name, "--ignore-not-found")
    failed = 0
    for way in WAYS:
        if way == "one namespace":
            kubectl("create", "namespace", NAMESPACE)  # A Role needs its namespace.
        wrong = run(program, way)
        failed += wrong is not None
        print(f"operator with the chart's rights, {way}: {'ok' if wrong is None else 'FAILED: ' + wrong}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
