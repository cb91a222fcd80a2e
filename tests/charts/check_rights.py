"""Who may do what once the chart is installed. Run by `.ci/charts`; needs no cluster."""

import re
import unittest

import charts
from charts import NAMESPACE, ROOT, WAYS, objects

# Verbs that hand out rights, or take those of others.
ESCALATING = {"escalate", "bind", "impersonate"}


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
            "kind": kind,
            "metadata": {"name": "bad", "namespace": namespace},
            "rules": [rule],
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
            inside = lambda *kinds: [
                o for o in charts.of_kind(found, *kinds) if o["metadata"]["namespace"] == namespace
            ]
            self.assertEqual(len(inside("Role")), 1)
            (binding,) = inside("RoleBinding")
            self.assertEqual(binding["roleRef"]["name"], inside("Role")[0]["metadata"]["name"])
            self.assertEqual(
                [(one["kind"], one["name"], one["namespace"]) for one in binding["subjects"]],
                [("ServiceAccount", "toolgate-operator", NAMESPACE)],
            )

    def test_only_reading_is_aggregated_and_only_to_view(self):
        for way in ("default", "full"):
            aggregated = [
                role
                for role in self.roles(way)
                if any(
                    label.startswith("rbac.authorization.k8s.io/aggregate-to-") for label in role["metadata"]["labels"]
                )
            ]
            self.assertEqual(len(aggregated), 1)
            labels = aggregated[0]["metadata"]["labels"]
            self.assertEqual(
                [label for label in labels if "aggregate-to" in label], ["rbac.authorization.k8s.io/aggregate-to-view"]
            )
            granted = charts.grants(aggregated[0])
            self.assertEqual({verb for *_, verb in granted}, {"get", "list", "watch"})
            self.assertEqual({group for group, *_ in granted}, {"toolgate.dev"})
            self.assertLessEqual({"mcpservers", "mcptools", "mcproles", "mcpgateways"}, {r for _, r, *_ in granted})

    def test_the_editor_role_is_bound_to_nobody(self):
        bound = {
            one["roleRef"]["name"] for one in charts.of_kind(objects("default"), "ClusterRoleBinding", "RoleBinding")
        }
        self.assertNotIn("toolgate-editor.toolgate-system", bound)
        self.assertIn("toolgate-editor.toolgate-system", [role["metadata"]["name"] for role in self.roles("default")])


if __name__ == "__main__":
    unittest.main()
