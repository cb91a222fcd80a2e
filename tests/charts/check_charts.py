"""The promises of the charts. Run by `.ci/charts`, which builds the tools; needs no cluster."""

import importlib.util
import itertools
import json
import os
import pathlib
import re
import tempfile
import unittest

import yaml

import charts
from charts import CHART, CRDS_CHART, NAMESPACE, ROOT, WAYS

KINDS = {"McpGateway", "McpRole", "McpServer", "McpTool"}
# 200 kB as JSON: far enough from what etcd and one request take.
CRD_LIMIT = 200_000
# Verbs that hand out rights, or take those of others.
ESCALATING = {"escalate", "bind", "impersonate"}
CLUSTER_SCOPED = {
    "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace", "PriorityClass",
    "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
}


def objects(way):
    """What an installation makes."""
    return charts.documents(charts.render(CHART, *WAYS[way]))


def too_much(role, own_namespace):
    """What a role of the operator must not hold, as text; empty where it is as it should be."""
    found = []
    for group, resource, name, verb in sorted(charts.grants(role), key=str):
        what = f"{role['kind']} {role['metadata']['name']}: {verb} {group}/{resource} {name or ''}".strip()
        if "*" in verb or "*" in group or "*" in resource:
            found.append(f"{what}: wildcard")
        if verb in ESCALATING:
            found.append(f"{what}: hands out rights")
        if resource.split("/")[0] == "secrets":
            at_home = role["kind"] == "Role" and role["metadata"]["namespace"] == own_namespace
            if not at_home:
                found.append(f"{what}: a Secret outside of the operator's namespace")
            elif verb != "create" and name != "toolgate-keys":
                found.append(f"{what}: another Secret than toolgate-keys")
            elif verb not in {"create", "get", "update"}:
                found.append(f"{what}: more than create, get and update")
        if group == "rbac.authorization.k8s.io" or resource in {"serviceaccounts/token", "pods/exec", "nodes"}:
            found.append(f"{what}: a way to more rights")
    return found


def quickstart():
    """What `kubectl apply -k` of the example applies."""
    return charts.run(os.environ["KUSTOMIZE"], "build", ROOT / "examples/kubernetes-quickstart")


class Kinds(unittest.TestCase):
    """charts/toolgate-crds."""

    def rendered(self):
        return charts.documents(charts.render(CRDS_CHART))

    def test_the_copies_are_the_generated_files(self):
        read = lambda folder: {path.name: path.read_text() for path in folder.glob("*.yaml")}
        self.assertEqual(read(CRDS_CHART / "files"), read(ROOT / "crds"), "run `make crds`")

    def test_every_kind_stays_on_uninstall_and_is_otherwise_as_generated(self):
        generated = {}
        for path in (ROOT / "crds").glob("*.yaml"):
            for crd in charts.documents(path.read_text()):
                generated[crd["metadata"]["name"]] = crd
        rendered = {crd["metadata"]["name"]: crd for crd in self.rendered()}
        self.assertEqual({crd["spec"]["names"]["kind"] for crd in rendered.values()}, KINDS)
        for name, crd in rendered.items():
            self.assertEqual(crd["metadata"].pop("annotations"), {"helm.sh/resource-policy": "keep"}, name)
            self.assertEqual(crd, generated[name])

    def test_every_kind_is_small(self):
        for crd in self.rendered():
            size = len(json.dumps(crd, separators=(",", ":")).encode())
            self.assertLess(size, CRD_LIMIT, crd["metadata"]["name"])

    def test_both_charts_have_one_version(self):
        read = lambda chart: yaml.safe_load((chart / "Chart.yaml").read_text())
        for key in ("version", "appVersion", "kubeVersion"):
            self.assertEqual(read(CHART)[key], read(CRDS_CHART)[key])
        cargo = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
        self.assertEqual(read(CHART)["appVersion"], cargo[1])


class Values(unittest.TestCase):
    """values.yaml, values.schema.json and the values of these checks."""

    default = yaml.safe_load((CHART / "values.yaml").read_text())
    full = yaml.safe_load((CHART / "values/full.yaml").read_text())

    def test_lint_finds_nothing(self):
        charts.helm("lint", "--strict", CRDS_CHART)
        for arguments in WAYS.values():
            charts.helm("lint", "--strict", CHART, *(one for one in arguments if "PodMonitor" not in one and one != "--api-versions"))

    def test_schema_and_values_name_the_same(self):
        schema = json.loads((CHART / "values.schema.json").read_text())

        def named(schema):
            for key, value in schema.get("properties", {}).items():
                below = list(named(value))
                yield from ((key, *path) for path in below) if below else [(key,)]

        # Below these everything is Kubernetes' own.
        free = {"resources"}
        cut = lambda paths: {path[:1] if path[0] in free else path for path in paths}
        self.assertEqual(cut(charts.leaves(self.default)), cut(named(schema)) - {("global",)})

    def test_unknown_values_are_refused_at_every_level(self):
        parents = {()} | {path[:depth] for path in charts.leaves(self.default) for depth in range(1, len(path))}
        self.assertGreater(len(parents), 5)
        for parent in sorted(parents):
            with self.subTest(parent=parent), self.assertRaisesRegex(RuntimeError, "additional properties"):
                charts.render(CHART, "--set", ".".join((*parent, "unheardOf")) + "=1")

    def test_values_that_mean_nothing_are_refused(self):
        for wrong in (
            "replicas=0", "image.tag=latest", "image.digest=sha256:short", "image.pullPolicy=Sometimes",
            "watchNamespaces={Agents}", "watchNamespaces={a,a}", "admission.actions={Deny,Warn}", "admission.actions={}",
            "leaseSeconds=1", "networkPolicy.apiServerPorts={}", "resources.limits.gpu=1",
        ):
            with self.subTest(wrong=wrong), self.assertRaisesRegex(RuntimeError, "values don't meet the specifications"):
                charts.render(CHART, "--set", wrong)

    def test_every_value_has_an_effect(self):
        """Takes the full values, puts one back to its default, and looks for a difference."""
        # These win over another, or count only where another is not set.
        beside = {
            ("image", "tag"): {"image": {"digest": "", "tag": "0.0.7"}, "gateway": {"image": ""}},
            ("watchNamespaces",): {"watchNamespaces": ["agents"]},
        }
        base = WAYS["full"]
        before = charts.render(CHART, *base)
        with tempfile.TemporaryDirectory() as folder:
            for path in charts.leaves(self.default):
                value, change = charts.at(self.default, path), None
                if path in beside:
                    change = beside[path]
                else:
                    full = self.full
                    self.assertTrue(self.has(full, path), f"values/full.yaml does not set {'.'.join(path)}")
                    if charts.at(full, path) == value:
                        value = self.other(value)
                    # A map is merged, not replaced.
                    change = {"example.com/one-more": "x"} if isinstance(value, dict) else value
                    for key in reversed(path):
                        change = {key: change}
                file = pathlib.Path(folder) / "change.yaml"
                file.write_text(json.dumps(change))
                with self.subTest(value=".".join(path)):
                    after = charts.render.__wrapped__(CHART, *base, "--values", str(file))
                    self.assertNotEqual(before, after)

    @staticmethod
    def has(values, path):
        try:
            charts.at(values, path)
        except KeyError:
            return False
        return True

    @staticmethod
    def other(value):
        """A value that differs. Only switches may be alike in the default and in the full values."""
        assert isinstance(value, bool), value
        return not value

    def test_the_least_makes_nothing_of_the_whole_cluster(self):
        self.assertEqual([one["metadata"]["name"] for one in charts.of_kind(objects("min"), *CLUSTER_SCOPED)], [])


class Rights(unittest.TestCase):
    """Who may do what once the chart is installed."""

    def roles(self, way):
        return charts.of_kind(objects(way), "Role", "ClusterRole")

    def of_operator(self, way):
        return [role for role in self.roles(way) if "-operator" in role["metadata"]["name"]]

    def test_the_operator_has_no_wildcard_no_foreign_secret_and_hands_out_no_rights(self):
        for way in WAYS:
            roles = self.of_operator(way)
            self.assertGreaterEqual(len(roles), 2, way)
            for role in roles:
                self.assertEqual(too_much(role, NAMESPACE), [], way)

    def test_the_check_of_rights_bites(self):
        role = lambda kind="Role", namespace=NAMESPACE, **rule: {
            "kind": kind, "metadata": {"name": "bad", "namespace": namespace}, "rules": [rule],
        }
        secrets = {"apiGroups": [""], "resources": ["secrets"]}
        for bad in (
            role(apiGroups=["*"], resources=["pods"], verbs=["get"]),
            role(apiGroups=[""], resources=["*"], verbs=["get"]),
            role(apiGroups=[""], resources=["pods"], verbs=["*"]),
            role(apiGroups=[""], resources=["serviceaccounts"], verbs=["impersonate"]),
            role(apiGroups=["rbac.authorization.k8s.io"], resources=["roles"], verbs=["get"]),
            role(**secrets, verbs=["get"]),
            role(**secrets, resourceNames=["toolgate-keys"], verbs=["delete"]),
            role(**secrets, resourceNames=["toolgate-keys"], verbs=["get"], namespace="agents"),
            role(**secrets, verbs=["create"], kind="ClusterRole"),
            role(nonResourceURLs=["/*"], verbs=["get"]),
        ):
            self.assertNotEqual(too_much(bad, NAMESPACE), [], bad)

    def test_no_role_of_the_chart_has_a_wildcard_or_hands_out_rights(self):
        for way in WAYS:
            for role in self.roles(way):
                for group, resource, _, verb in charts.grants(role):
                    self.assertNotIn("*", group + resource + verb)
                    self.assertNotIn(verb, ESCALATING)

    def test_the_operator_is_granted_what_it_asks_for_and_no_more(self):
        """Compares with the table in src/kubernetes/mod.rs, in both ways to install."""
        asked = {"everywhere": set(), "own namespace": set(), "cluster": set()}
        for line in (ROOT / "src/kubernetes/mod.rs").read_text().splitlines():
            cells = [cell.strip() for cell in line.removeprefix("//! |").rstrip("|").split("|")]
            if not line.startswith("//! |") or cells[0] not in asked:
                continue
            group = re.sub(r"`|\(core\)|\(non-resource\)", "", cells[1])
            for resource in re.findall(r"`([^`]+)`", cells[2]):
                asked[cells[0]] |= {(group, resource, verb.strip()) for verb in cells[3].split(",")}
        self.assertTrue(all(asked.values()), "the table is not there, or looks different")

        given = lambda role: {(group, resource, verb) for group, resource, _, verb in charts.grants(role)}
        for way in WAYS:
            for role in self.of_operator(way):
                if role["metadata"].get("namespace") == NAMESPACE:
                    wanted = asked["own namespace"]
                elif role["kind"] == "ClusterRole":
                    wanted = asked["everywhere"] | asked["cluster"]
                else:
                    wanted = asked["everywhere"]
                self.assertEqual(given(role), wanted, f"{way}: {role['kind']} {role['metadata']['name']}")

    def test_every_watched_namespace_gets_its_role_and_the_operator_alone_has_it(self):
        found = objects("min")
        for namespace in ("agents", "tools", NAMESPACE):
            inside = lambda *kinds: [o for o in charts.of_kind(found, *kinds) if o["metadata"]["namespace"] == namespace]
            self.assertEqual(len(inside("Role")), 1)
            (binding,) = inside("RoleBinding")
            self.assertEqual(binding["roleRef"]["name"], inside("Role")[0]["metadata"]["name"])
            self.assertEqual([(one["kind"], one["name"], one["namespace"]) for one in binding["subjects"]],
                             [("ServiceAccount", "toolgate-operator", NAMESPACE)])

    def test_only_reading_is_aggregated_and_only_to_view(self):
        for way in ("default", "full"):
            aggregated = [
                role for role in self.roles(way)
                if any(label.startswith("rbac.authorization.k8s.io/aggregate-to-") for label in role["metadata"]["labels"])
            ]
            self.assertEqual(len(aggregated), 1)
            labels = aggregated[0]["metadata"]["labels"]
            self.assertEqual([label for label in labels if "aggregate-to" in label],
                             ["rbac.authorization.k8s.io/aggregate-to-view"])
            granted = charts.grants(aggregated[0])
            self.assertEqual({verb for *_, verb in granted}, {"get", "list", "watch"})
            self.assertEqual({group for group, *_ in granted}, {"toolgate.dev"})
            self.assertLessEqual({"mcpservers", "mcptools", "mcproles", "mcpgateways"}, {r for _, r, *_ in granted})

    def test_the_editor_role_is_bound_to_nobody(self):
        bound = {one["roleRef"]["name"] for one in charts.of_kind(objects("default"), "ClusterRoleBinding", "RoleBinding")}
        self.assertNotIn("toolgate-editor.toolgate-system", bound)
        self.assertIn("toolgate-editor.toolgate-system", [role["metadata"]["name"] for role in self.roles("default")])


class Manifests(unittest.TestCase):
    """Everything that is rendered or shipped as an example."""

    def test_schemas_hold(self):
        """kubeconform -strict; the schemas of our kinds come from crds/, PodMonitor's from its project."""
        bundled = pathlib.Path(importlib.util.find_spec("kubernetes_validate").submodule_search_locations[0]) / "kubernetes-json-schema"
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            crds = [*(ROOT / "crds").glob("*.yaml"), pathlib.Path(os.environ["POD_MONITOR_CRD"])]
            for crd in itertools.chain.from_iterable(charts.documents(path.read_text()) for path in crds):
                for group, kind, version, schema in charts.schema_of_crd(crd):
                    charts.write_json(folder / group / f"{kind.lower()}_{version}.json", schema)

            # The bundled schemas name themselves, and each other, by addresses that only their own program knows.
            for version in KUBERNETES:
                for path in (bundled / f"v{version}-local-strict").glob("*.json"):
                    text = path.read_text().replace('"/api/_definitions.json#', '"_definitions.json#').replace('"$id":', '"$comment":')
                    target = folder / f"v{version}" / path.name
                    target.parent.mkdir(exist_ok=True)
                    target.write_text(text)

            def conform(text, version):
                return charts.run(
                    os.environ["KUBECONFORM"], "-strict", "-summary", "-kubernetes-version", version,
                    "-schema-location", f"{folder}/{{{{.NormalizedKubernetesVersion}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
                    "-schema-location", f"{folder}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json",
                    text=text,
                )

            manifests = {f"toolgate, {way}": charts.render(CHART, *WAYS[way]) for way in WAYS}
            manifests["toolgate-crds"] = charts.render(CRDS_CHART)
            manifests["kubernetes-quickstart"] = quickstart()
            for path in sorted((ROOT / "examples").rglob("*.yaml")):
                text = path.read_text()
                if re.search("^kind: Mcp", text, re.MULTILINE):
                    manifests[str(path.relative_to(ROOT))] = text
            for name, text in manifests.items():
                for version in KUBERNETES:
                    with self.subTest(manifests=name, kubernetes=version):
                        said = conform(text, version)
                        self.assertRegex(said, r"Valid: [1-9]\d*, Invalid: 0, Errors: 0, Skipped: 0")
            # The same question must be able to fail.
            role = "apiVersion: toolgate.dev/v1alpha1\nkind: McpRole\nmetadata: {name: a}\nspec: {rulez: []}\n"
            service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {portz: []}\n"
            for wrong in (role, service):
                with self.assertRaisesRegex(RuntimeError, "additional properties|additionalProperties"):
                    conform(wrong, KUBERNETES[-1])

    def test_score_has_nothing_critical(self):
        for way in WAYS:
            with self.subTest(way=way):
                said = charts.run(os.environ["KUBE_SCORE"], "score", "--output-format", "json", "-",
                                  text=charts.render(CHART, *WAYS[way]))
                deployments = [one for one in json.loads(said) if one["type_meta"]["kind"] == "Deployment"]
                self.assertEqual(len(deployments), 1)
        # The same question must be able to fail.
        with self.assertRaisesRegex(RuntimeError, "matching NetworkPolicy"):
            charts.run(os.environ["KUBE_SCORE"], "score", "-", text=charts.render(CHART, "--set", "networkPolicy.enabled=false"))

    def test_pods_are_restricted(self):
        for way in WAYS:
            (deployment,) = charts.of_kind(objects(way), "Deployment")
            pod = deployment["spec"]["template"]["spec"]
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertFalse({"hostNetwork", "hostPID", "hostIPC", "volumes"} & set(pod))
            for container in pod["containers"]:
                context = container["securityContext"]
                self.assertIs(context["allowPrivilegeEscalation"], False)
                self.assertIs(context["readOnlyRootFilesystem"], True)
                self.assertEqual(context["capabilities"], {"drop": ["ALL"]})

    def test_selectors_find_the_operators_pods(self):
        for way in WAYS:
            found = objects(way)
            (deployment,) = charts.of_kind(found, "Deployment")
            labels = deployment["spec"]["template"]["metadata"]["labels"].items()
            selectors = [deployment["spec"]["selector"]["matchLabels"]]
            selectors += [one["spec"]["selector"] for one in charts.of_kind(found, "Service")]
            selectors += [one["spec"]["selector"]["matchLabels"] for one in charts.of_kind(found, "PodMonitor", "PodDisruptionBudget")]
            selectors += [one["spec"]["podSelector"]["matchLabels"] for one in charts.of_kind(found, "NetworkPolicy")]
            self.assertGreaterEqual(len(selectors), 3)
            for selector in selectors:
                self.assertLessEqual(selector.items(), labels)

    def test_the_service_is_where_gateways_are_sent(self):
        (deployment,) = charts.of_kind(objects("default"), "Deployment")
        (service,) = charts.of_kind(objects("default"), "Service")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        url = f"https://{service['metadata']['name']}.{NAMESPACE}.svc:{service['spec']['ports'][0]['port']}"
        self.assertIn(f"--policy-server={url}", container["args"])
        self.assertIn(service["spec"]["ports"][0]["targetPort"], [port["name"] for port in container["ports"]])

    def test_what_the_chart_makes_is_not_marked_as_the_operators(self):
        for way in WAYS:
            for one in objects(way):
                labels = one["metadata"]["labels"]
                self.assertEqual(labels["app.kubernetes.io/managed-by"], "Helm", one["metadata"]["name"])
                self.assertFalse([label for label in labels if label.startswith("toolgate.dev/")])

    def test_a_pod_monitor_is_made_only_where_the_kind_is_known(self):
        arguments = ("--set", "podMonitor.enabled=true")
        self.assertNotIn("kind: PodMonitor", charts.render(CHART, *arguments))
        known = charts.render(CHART, *arguments, "--api-versions", "monitoring.coreos.com/v1/PodMonitor")
        self.assertEqual(len(charts.of_kind(charts.documents(known), "PodMonitor")), 1)

    def test_two_releases_share_no_object_of_the_cluster(self):
        render = lambda release, namespace: {
            (one["kind"], one["metadata"]["name"])
            for one in charts.of_kind(charts.documents(charts.helm("template", release, CHART, "--namespace", namespace)), *CLUSTER_SCOPED)
        }
        first = render("toolgate", "one")
        self.assertGreater(len(first), 5)
        for other in (render("toolgate", "two"), render("toolgate-b", "one")):
            self.assertFalse(first & other)

    def test_guards_look_only_where_the_operator_works(self):
        found = charts.documents(charts.render(CHART, "--set", "watchNamespaces={agents}"))
        for policy in charts.of_kind(found, "ValidatingAdmissionPolicy"):
            constraints = policy["spec"]["matchConstraints"]
            self.assertEqual(policy["spec"]["failurePolicy"], "Fail")
            if policy["metadata"]["name"].startswith("toolgate-operator-lane"):
                self.assertNotIn("namespaceSelector", constraints)
                continue
            (expression,) = constraints["namespaceSelector"]["matchExpressions"]
            self.assertEqual(expression["values"], ["agents"])

    def test_every_guard_is_in_force_as_the_values_say(self):
        for way, actions in (("default", ["Deny"]), ("full", ["Warn", "Audit"])):
            found = objects(way)
            policies = {one["metadata"]["name"] for one in charts.of_kind(found, "ValidatingAdmissionPolicy")}
            bindings = charts.of_kind(found, "ValidatingAdmissionPolicyBinding")
            self.assertEqual(policies, {one["spec"]["policyName"] for one in bindings})
            self.assertEqual(len(policies), 6)
            for binding in bindings:
                self.assertEqual(binding["spec"]["validationActions"], actions)


class Quickstart(unittest.TestCase):
    """examples/kubernetes-quickstart, and docs/kubernetes.md, which walks through it."""

    page = (ROOT / "docs/kubernetes.md").read_text()

    def test_everything_is_in_a_namespace_that_enforces_restricted(self):
        found = charts.documents(quickstart())
        (namespace,) = charts.of_kind(found, "Namespace")
        self.assertEqual(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted")
        for one in found:
            if one["kind"] != "Namespace":
                self.assertEqual(one["metadata"]["namespace"], namespace["metadata"]["name"])
        self.assertLessEqual(KINDS, {one["kind"] for one in found})

    def test_the_images_of_the_kustomization_reach_the_servers(self):
        servers = charts.of_kind(charts.documents(quickstart()), "McpServer")
        images = {one["spec"]["source"]["container"]["image"] for one in servers}
        kustomization = yaml.safe_load((ROOT / "examples/kubernetes-quickstart/kustomization.yaml").read_text())
        self.assertEqual(images, {f"{one['newName']}:{one['newTag']}" for one in kustomization["images"]})

    def test_the_page_builds_the_images_that_are_deployed(self):
        built = set(re.findall(r"^\$ docker build .*?-t (\S+)", self.page, re.MULTILINE))
        servers = charts.of_kind(charts.documents(quickstart()), "McpServer")
        (deployment,) = charts.of_kind(objects("default"), "Deployment")
        wanted = {one["spec"]["source"]["container"]["image"] for one in servers}
        wanted |= {one["image"] for one in deployment["spec"]["template"]["spec"]["containers"]}
        self.assertEqual(built, wanted)

    def test_the_page_names_what_exists(self):
        found = charts.documents(quickstart()) + objects("default") + charts.documents(charts.render(CRDS_CHART))
        names = {one["metadata"]["name"] for one in found}
        for name in re.findall(r"--clusterrole=(\S+)|\bdelete mcprole (\S+)|service/(\w+)|(\w+\.toolgate\.dev)\b", self.page):
            self.assertIn("".join(name), names)
        for path in re.findall(r"\]\((\.\./[^)#]+)", self.page):
            self.assertTrue((ROOT / "docs" / path).exists(), path)


# The oldest that is supported and the newest that there are schemas for.
KUBERNETES = ("1.33.0", "1.37.0")

if __name__ == "__main__":
    unittest.main()
