"""Renders the charts, and says what a rendered role grants. Knows no expectation: those are in the checks."""

import functools
import json
import os
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/toolgate"
CRDS_CHART = ROOT / "charts/toolgate-crds"
NAMESPACE = "toolgate-system"
KINDS = {"McpGateway", "McpRole", "McpServer", "McpTool"}
CLUSTER_SCOPED = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "PriorityClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
# Each way to install that is checked: arguments of `helm template`.
WAYS = {
    "min": ("--values", str(CHART / "values/min.yaml")),
    "default": (),
    "full": ("--values", str(CHART / "values/full.yaml"), "--api-versions", "monitoring.coreos.com/v1/PodMonitor"),
}


def run(*command, text=None):
    """Runs a program and returns its output; raises with what it said where it fails."""
    done = subprocess.run([str(part) for part in command], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def helm(*arguments):
    """Runs Helm."""
    return run(os.environ["HELM"], *arguments)


@functools.cache
def render(chart, *arguments):
    """The text of every manifest of a chart."""
    return helm("template", "toolgate", chart, "--namespace", NAMESPACE, "--kube-version", "1.33.0", *arguments)


def documents(text):
    """The objects of a YAML stream. Fails on a key that is there twice, which YAML readers take as they please."""
    return [document for document in yaml.load_all(text, Loader=Strict) if document is not None]


class Strict(yaml.CSafeLoader):
    """Refuses duplicate keys."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", node.start_mark)
        return super().construct_mapping(node, deep)


def objects(way):
    """What an installation makes."""
    return documents(render(CHART, *WAYS[way]))


def quickstart():
    """What `kubectl apply -k` of the example applies, as text."""
    return run(os.environ["KUSTOMIZE"], "build", ROOT / "examples/kubernetes-quickstart")


def of_kind(objects, *kinds):
    """The objects of some kinds."""
    return [one for one in objects if one["kind"] in kinds]


def grants(role):
    """What a role grants: (group, resource, name or None, verb), and for paths ("", path, None, verb)."""
    found = set()
    for rule in role.get("rules") or []:
        for verb in rule["verbs"]:
            for path in rule.get("nonResourceURLs") or []:
                found.add(("", path, None, verb))
            for group in rule.get("apiGroups") or []:
                for resource in rule.get("resources") or []:
                    for name in rule.get("resourceNames") or [None]:
                        found.add((group, resource, name, verb))
    return found


def schema_of_crd(crd):
    """JSON schemas of a CRD, as (group, kind, version, schema), strict: what it does not name is refused."""
    spec = crd["spec"]
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= {
            "apiVersion": {"const": f"{spec['group']}/{version['name']}"},
            "kind": {"const": spec["names"]["kind"]},
            "metadata": {"type": "object"},
        }
        schema["required"] = sorted({*schema.get("required", []), "apiVersion", "kind", "metadata"})
        yield spec["group"], spec["names"]["kind"], version["name"], schema


def strict(schema):
    """An OpenAPI v3 schema of a CRD as JSON schema. Unknown fields are refused, as by strict field validation."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        bounds = {key: value for key, value in schema.items() if not key.startswith("x-")}
        return bounds | {"type": ["integer", "string"]}
    result = {key: value for key, value in schema.items() if not key.startswith("x-")}
    if "properties" in schema:
        result["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            result["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = strict(schema["additionalProperties"])
    if isinstance(schema.get("items"), dict):
        result["items"] = strict(schema["items"])
    for key in ("allOf", "anyOf", "oneOf"):
        # Parts of a structural schema only narrow: the properties are those of the whole.
        if key in schema:
            result[key] = schema[key]
    if schema.get("nullable") and isinstance(result.get("type"), str):
        result["type"] = [result["type"], "null"]
    return result


def leaves(values, path=()):
    """Paths of the values that a chart reads: maps are walked, and an empty one counts as a value."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def at(values, path):
    """The value at a path."""
    for key in path:
        values = values[key]
    return values


def write_json(path, value):
    """Writes a JSON file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
