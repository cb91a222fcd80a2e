#!/usr/bin/env python3
"""Runs the cases in `admission/` against the API server of KUBECONFIG, where the charts are installed as `toolgate` in
`toolgate-system` (`--install` does that, with HELM, and needs no node: the operator's pods may stay Pending). Meant for
a cluster of its own: it gives the test's users every right, so that the guards alone decide.

Needs PyYAML and HELM, which `.ci/charts admission --install` provides, and kubectl as KUBECTL or on the path."""

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
import uuid

import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KUBECTL = shlex.split(os.environ.get("KUBECTL", "kubectl"))
OWN_NAMESPACE = "toolgate-system"
OPERATOR = f"system:serviceaccount:{OWN_NAMESPACE}:toolgate-operator"
# Long enough for a busy machine; what is waited for takes milliseconds.
DEADLINE_SECONDS = 120
WHO = {
    "operator": ("--as", OPERATOR, "--as-group", "system:serviceaccounts", "--as-group", "system:authenticated"),
    "user": ("--as", "ada", "--as-group", "toolgate-test", "--as-group", "system:authenticated"),
    # Not a real node's name: of those the API server asks for more, such as a pod that runs there.
    "kubelet": ("--as", "kubelet", "--as-group", "system:nodes", "--as-group", "toolgate-test"),
}


def kubectl(*arguments, text=None):
    """Runs kubectl: (whether it worked, what it said)."""
    done = subprocess.run([*KUBECTL, *arguments], input=text, capture_output=True, text=True, check=False)
    return done.returncode == 0, (done.stdout + done.stderr).strip()


def must(*arguments, text=None):
    """Runs kubectl for the test itself."""
    worked, said = kubectl(*arguments, text=text)
    if not worked:
        raise RuntimeError(f"kubectl {' '.join(arguments)}: {said}")
    return said


def until(what, test):
    """Waits until `test` is true."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not test():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not so after {DEADLINE_SECONDS} s")
        time.sleep(0.1)


def prepare():
    """RBAC must never be what decides."""
    for name, subject in (
        ("toolgate-test-group", "--group=toolgate-test"),
        ("toolgate-test-operator", f"--user={OPERATOR}"),
        ("toolgate-test-infrastructure", "--group=system:serviceaccounts:kube-system"),
    ):
        manifest = must(
            "create",
            "clusterrolebinding",
            name,
            "--clusterrole=cluster-admin",
            subject,
            "--dry-run=client",
            "-o",
            "yaml",
        )
        must("apply", "-f", "-", text=manifest)
    # A guard that was just written is in force a moment later: each must have been seen to deny.
    probes = {
        "objects": ("user", {"apiVersion": "v1", "kind": "ConfigMap"}, {"app.kubernetes.io/managed-by": "toolgate"}),
        "pods": (
            "user",
            {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "c", "image": "c:1"}]}},
            {"toolgate.dev/server": "probe"},
        ),
        "templates": (
            "user",
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "spec": {
                    "selector": {"matchLabels": {"toolgate.dev/server": "probe"}},
                    "template": {
                        "metadata": {"labels": {"toolgate.dev/server": "probe"}},
                        "spec": {"containers": [{"name": "c", "image": "c:1"}]},
                    },
                },
            },
            {},
        ),
        "tools": (
            "user",
            {
                "apiVersion": "toolgate.dev/v1alpha1",
                "kind": "McpTool",
                "spec": {"serverRef": {"name": "a"}, "toolName": "a"},
            },
            {"toolgate.dev/registered-by": "probe"},
        ),
        "operator-lane": ("operator", {"apiVersion": "v1", "kind": "ConfigMap"}, {}),
    }
    for guard, (who, body, labels) in probes.items():
        text = json.dumps(body | {"metadata": {"name": "probe", "labels": labels}})

        def denied(who=who, text=text, guard=guard):
            worked, said = kubectl(
                *WHO[who], "--namespace", "default", "create", "--dry-run=server", "-f", "-", text=text
            )
            return not worked and f"toolgate-{guard}.{OWN_NAMESPACE}" in said

        until(f"guard {guard} is in force", denied)
    until(
        "guard tokens is in force",
        lambda: (
            f"toolgate-tokens.{OWN_NAMESPACE}"
            in kubectl(
                *WHO["user"], "--namespace", "default", "create", "token", "default", "--audience", "toolgate-policy"
            )[1]
        ),
    )


def named(kind_and_name, namespace):
    """KIND/NAME as it is, or of KIND?LABELS the first that there is."""
    if "?" not in kind_and_name:
        return kind_and_name
    kind, labels = kind_and_name.split("?")
    found = must("--namespace", namespace, "get", kind, "--selector", labels, "-o", "name").split()
    if not found:
        raise AssertionError(f"there is no {kind} with {labels}")
    return found[0]


def act(step, namespace):
    """Does what a step says, as whom it says."""
    who = WHO.get(
        step["as"],
        ("--as", step["as"], "--as-group", "system:serviceaccounts:kube-system", "--as-group", "system:authenticated"),
    )
    namespace = step.get("namespace", namespace)
    command = [*who, "--namespace", namespace]
    if "create" in step:
        return kubectl(*command, "create", "-f", "-", text=json.dumps(step["create"]).replace("NAMESPACE", namespace))
    if "patch" in step:
        below = ("--subresource", step["subresource"]) if "subresource" in step else ()
        return kubectl(
            *command,
            "patch",
            named(step["patch"], namespace),
            "--type",
            "merge",
            *below,
            "--patch",
            json.dumps(step["with"]),
        )
    if "delete" in step:
        return kubectl(*command, "delete", named(step["delete"], namespace), "--wait=false")
    if "token" in step:
        return kubectl(*command, "create", "token", step["token"], "--audience", step["audience"])
    raise KeyError(f"a step does nothing: {step}")


def wait(step, namespace):
    """Waits for what the cluster's own controllers do."""
    if step["wait"] == "event":
        until(
            f"an event says {step['says']!r}",
            lambda: step["says"] in must("--namespace", namespace, "get", "events", "-o", "json"),
        )
        return
    count = lambda: len(
        must("--namespace", namespace, "get", step["wait"], "--selector", step["labels"], "-o", "name").split()
    )
    if step.get("count", 1) == 0:
        until(f"no {step['wait']} with {step['labels']}", lambda: count() == 0)
    else:
        until(f"{step.get('count', 1)} {step['wait']} with {step['labels']}", lambda: count() >= step.get("count", 1))


def judge(step, worked, said):
    """What is wrong with an answer; nothing where it is as expected."""
    if step["expect"] == "Allowed":
        return None if worked else f"should be allowed, but: {said}"
    if worked:
        return f"should be denied by {step['by']}, but was allowed"
    guards = step["by"] if isinstance(step["by"], list) else [step["by"]]
    if any(f"ValidatingAdmissionPolicy 'toolgate-{guard}.{OWN_NAMESPACE}'" in said for guard in guards):
        return None
    return f"should be denied by {step['by']}, but: {said}"


def run(case):
    """Runs one case in a namespace of its own: what is wrong, or nothing."""
    namespace = f"guards-{uuid.uuid4().hex[:8]}"
    must("create", "namespace", namespace)
    try:
        until(
            "the default ServiceAccount",
            lambda: kubectl("--namespace", namespace, "get", "serviceaccount", "default")[0],
        )
        for number, step in enumerate(case["steps"], start=1):
            if "wait" in step:
                wait(step, namespace)
                continue
            wrong = judge(step, *act(step, namespace))
            if wrong:
                return f"step {number}: {wrong}"
    except (AssertionError, RuntimeError) as error:
        return str(error)
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")
    return None


def main():
    """Exit code 1 where a case fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="install both charts first")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    flags = parser.parse_args()
    if flags.install:
        for name in ("toolgate-crds", "toolgate"):
            subprocess.run(
                [
                    os.environ["HELM"],
                    "upgrade",
                    "--install",
                    name,
                    ROOT / "charts" / name,
                    "--namespace",
                    OWN_NAMESPACE,
                    "--create-namespace",
                ],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        for crd in sorted((ROOT / "crds").glob("*.yaml")):
            must("wait", "--for=condition=Established", "--timeout=60s", "-f", str(crd))
    prepare()
    cases = [case for path in sorted((HERE / "admission").glob("*.yaml")) for case in yaml.safe_load(path.read_text())]
    failed = 0
    for case in cases:
        if flags.only not in case["name"]:
            continue
        wrong = run(case)
        failed += wrong is not None
        print(f"{case['name']}: {'ok' if wrong is None else 'FAILED: ' + wrong}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
