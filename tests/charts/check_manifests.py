"""Everything that is rendered or shipped as an example. Run by `.ci/charts`; needs no cluster."""

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
from charts import CHART, CLUSTER_SCOPED, CRDS_CHART, KINDS, NAMESPACE, ROOT, WAYS, objects, quickstart

# The oldest that is supported and the newest that there are schemas for.
KUBERNETES = ("1.33.0", "1.37.0")


class Manifests(unittest.TestCase):
    """Everything that is rendered or shipped as an example."""

    def test_schemas_hold(self):
        """kubeconform -strict; the schemas of our kinds come from crds/, PodMonitor's from its project."""
        bundled = (
            pathlib.Path(importlib.util.find_spec("kubernetes_validate").submodule_search_locations[0])
            / "kubernetes-json-schema"
        )
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            crds = [*(ROOT / "crds").glob("*.yaml"), pathlib.Path(os.environ["POD_MONITOR_CRD"])]
            for crd in itertools.chain.from_iterable(charts.documents(path.read_text()) for path in crds):
                for group, kind, version, schema in charts.schema_of_crd(crd):
                    charts.write_json(folder / group / f"{kind.lower()}_{version}.json", schema)

            # The bundled schemas name themselves, and each other, by addresses that only their own program knows.
            for version in KUBERNETES:
                for path in (bundled / f"v{version}-local-strict").glob("*.json"):
                    text = (
                        path.read_text()
                        .replace('"/api/_definitions.json#', '"_definitions.json#')
                        .replace('"$id":', '"$comment":')
                    )
                    target = folder / f"v{version}" / path.name
                    target.parent.mkdir(exist_ok=True)
                    target.write_text(text)

            def conform(text, version):
                return charts.run(
                    os.environ["KUBECONFORM"],
                    "-strict",
                    "-summary",
                    "-kubernetes-version",
                    version,
                    "-schema-location",
                    f"{folder}/{{{{.NormalizedKubernetesVersion}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
                    "-schema-location",
                    f"{folder}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json",
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
                said = charts.run(
                    os.environ["KUBE_SCORE"],
                    "score",
                    "--output-format",
                    "json",
                    "-",
                    text=charts.render(CHART, *WAYS[way]),
                )
                deployments = [one for one in json.loads(said) if one["type_meta"]["kind"] == "Deployment"]
                self.assertEqual(len(deployments), 1)
        # The same question must be able to fail.
        with self.assertRaisesRegex(RuntimeError, "matching NetworkPolicy"):
            charts.run(
                os.environ["KUBE_SCORE"],
                "score",
                "-",
                text=charts.render(CHART, "--set", "networkPolicy.enabled=false"),
            )

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
            selectors += [
                one["spec"]["selector"]["matchLabels"]
                for one in charts.of_kind(found, "PodMonitor", "PodDisruptionBudget")
            ]
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
            for one in charts.of_kind(
                charts.documents(charts.helm("template", release, CHART, "--namespace", namespace)), *CLUSTER_SCOPED
            )
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


class Image(unittest.TestCase):
    """What the Containerfile builds from."""

    def test_the_build_context_holds_what_cargo_reads(self):
        context = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        embedded = [
            (path.parent / name).resolve().relative_to(ROOT).parts[0]
            for path in (ROOT / "src").rglob("*.rs")
            for name in re.findall(r"include_(?:str|bytes)!\(\s*\"([^\"]+)\"", path.read_text())
            if (path.parent / name).exists()  # Else it names a path of the build.
        ]
        self.assertIn("crds", embedded)
        self.assertLessEqual({*embedded, ".cargo", "Cargo.toml", "Cargo.lock", "build.rs", "proto"}, context)


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
        # Of what a console shows, what is typed: the rest is what an example happened to print.
        typed = re.sub(
            r"(?s)(?<=```console\n).*?(?=```)",
            lambda block: "\n".join(line for line in block[0].splitlines() if line.startswith("$ ")),
            self.page,
        )
        named = re.findall(
            r"--clusterrole=(\S+)|\bdelete mcprole (\S+)|service/(\w+)|(\w+\.toolgate\.dev)\b", typed
        )
        self.assertGreaterEqual(len(named), 8)
        for name in named:
            self.assertIn("".join(name), names)
        for path in re.findall(r"\]\((\.\./[^)#]+)", self.page):
            self.assertTrue((ROOT / "docs" / path).exists(), path)


if __name__ == "__main__":
    unittest.main()
