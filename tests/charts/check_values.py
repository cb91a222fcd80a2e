"""The kinds' chart, and what can be said to the operator's. Run by `.ci/charts`; needs no cluster."""

import json
import pathlib
import re
import tempfile
import unittest

import yaml

import charts
from charts import CHART, CLUSTER_SCOPED, CRDS_CHART, KINDS, ROOT, WAYS, objects

# 200 kB as JSON: far enough from what etcd and one request take.
CRD_LIMIT = 200_000


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
            charts.helm(
                "lint",
                "--strict",
                CHART,
                *(one for one in arguments if "PodMonitor" not in one and one != "--api-versions"),
            )

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
            "replicas=0",
            "image.tag=latest",
            "image.digest=sha256:short",
            "image.pullPolicy=Sometimes",
            "watchNamespaces={Agents}",
            "watchNamespaces={a,a}",
            "admission.actions={Deny,Warn}",
            "admission.actions={}",
            "leaseSeconds=1",
            "networkPolicy.apiServerPorts={}",
            "resources.limits.gpu=1",
        ):
            with (
                self.subTest(wrong=wrong),
                self.assertRaisesRegex(RuntimeError, "values don't meet the specifications"),
            ):
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


if __name__ == "__main__":
    unittest.main()
