"""What helm makes of values: objects that the API server takes, with no more rights and reach than the values say."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from hack.chart import dashboard, plain, sources
from hack.chart.sources import CHART, DEPLOY, PIPELINE
from tests.chart.conftest import Render
from tests.chart.values import MATRIX
from workitems import crd, leading
from workitems.api import Pipeline
from workitems.settings import Settings

pytestmark = pytest.mark.slow

JSON = dict[str, Any]
OURS = "workitems.dev"
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
OTHERS: JSON = yaml.safe_load(Path(__file__).with_name("others.schema.yaml").read_text(encoding="utf-8"))
"""Schemas of kinds of the Prometheus operator and of the Gateway API, which Kubernetes does not know."""
CLUSTER_WIDE = {
    *("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
}


def kinds(objects: list[JSON], kind: str) -> list[JSON]:
    return [body for body in objects if body["kind"] == kind]


def only(objects: list[JSON], kind: str, name: str | None = None) -> JSON:
    (found,) = [body for body in kinds(objects, kind) if name in (None, body["metadata"]["name"])]
    return found


def environment(objects: list[JSON]) -> dict[str, str]:
    """The operator's variables as the container sees them; the downward API's namespace filled in."""
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry.get("value", "workitem-operator") for entry in container["env"]}


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_helm_finds_nothing_to_complain_about(helm: Path, tmp_path: Path, values: JSON) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    command = [str(helm), "lint", "--strict", str(CHART), f"--values={file}", f"--kube-version={plain.OLDEST}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def others(body: JSON) -> None:
    """Raises jsonschema.ValidationError for an object of a kind in OTHERS that its CRD would refuse."""
    jsonschema.Draft202012Validator({**OTHERS, "$ref": f"#/$defs/{body['kind']}"}).validate(body)


@pytest.mark.parametrize("version", ["1.32", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_every_object_is_what_kubernetes_knows(render: Render, values: JSON, version: str) -> None:
    objects = render(values)
    for body in objects:
        if body["kind"] in OTHERS["$defs"]:
            others(body)
        else:
            kubernetes_validate.validate(body, version, strict=True)
    names = [(body["kind"], body["metadata"].get("namespace"), body["metadata"]["name"]) for body in objects]
    assert len(names) == len(set(names)), "the same object twice"
    for body in objects:
        assert ("namespace" in body["metadata"]) is (body["kind"] not in CLUSTER_WIDE), body["metadata"]["name"]


@pytest.mark.parametrize(
    ("values", "kind", "path", "wrong"),
    [
        ("watched", "ServiceMonitor", ("endpoints", 0, "intervall"), "30s"),
        ("watched", "ServiceMonitor", ("endpoints", 0, "interval"), "30"),
        ("watched", "PrometheusRule", ("groups", 0, "rules", 0, "for"), "ten minutes"),
        ("watched", "PrometheusRule", ("groups", 0, "rules", 0, "record"), "both"),
        ("webhooks by a route, two operators", "HTTPRoute", ("rules", 0, "backendRefs", 0, "port"), "webhooks"),
        ("webhooks by a route, two operators", "HTTPRoute", ("rules", 0, "matches", 0, "path", "type"), "Prefix"),
    ],
)
def test_a_mistake_in_a_kind_of_others_is_found(
    render: Render, values: str, kind: str, path: tuple[str | int, ...], wrong: str
) -> None:
    body = only(render(MATRIX[values]), kind)
    others(body)
    place: Any = body["spec"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = wrong
    with pytest.raises(jsonschema.ValidationError):
        others(body)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_the_operator_starts_with_what_it_is_given(
    render: Render, values: JSON, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(render(values)).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.watch_namespaces == tuple(values.get("watchNamespaces", ()))
    wanted = values.get("settings", {})
    assert settings.sweep_seconds == wanted.get("sweepSeconds", 180)
    assert settings.runner_memory == wanted.get("runnerMemory", "1Gi")
    model = values.get("modelCredentials", {})
    told = settings.model_credentials
    assert (told.secret_name if told else "") == model.get("secretName", "")
    assert (told.auth_token if told else None) == model.get("authToken")
    own = (
        "registry.example.com/claude:2"
        if "claudeImage" in values
        else f"ghcr.io/workitems-dev/workitem-claude:{VERSION}"
    )
    assert settings.claude_image == own
    assert settings.run_uid == (wanted.get("runUid", 1000) or None)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_every_pod_passes_the_restricted_level(render: Render, values: JSON) -> None:
    objects = render(values)
    for spec in [only(objects, "Deployment")["spec"]["template"]["spec"], only(objects, "Pod")["spec"]]:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_services_policies_and_budgets_select_the_operators_pod_alone(render: Render, values: JSON) -> None:
    objects = render(values)
    deployment = only(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    wanted = deployment["spec"]["selector"]["matchLabels"]
    selectors = [only(objects, "Service", "workitem-operator")["spec"]["selector"]]
    selectors += [body["spec"]["selector"]["matchLabels"] for body in kinds(objects, "PodDisruptionBudget")]
    selectors += [
        body["spec"]["podSelector"]["matchLabels"]
        for body in kinds(objects, "NetworkPolicy")
        if not body["metadata"]["name"].endswith("-runs")
    ]
    assert all(selector == wanted for selector in selectors)
    assert wanted.items() <= labels.items()
    assert not wanted.items() <= only(objects, "Pod")["metadata"]["labels"].items()


def test_crds_come_with_the_release_and_stay_when_it_goes(render: Render) -> None:
    rendered = kinds(render(), "CustomResourceDefinition")
    assert {body["metadata"]["name"]: body["spec"] for body in rendered} == {
        body["metadata"]["name"]: body["spec"] for body in map(yaml.safe_load, crd.render().values())
    }
    assert all(body["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"} for body in rendered)
    assert not kinds(render({"crds": {"install": False}}), "CustomResourceDefinition")
    assert not (CHART / "crds").exists(), "helm would install them and never upgrade them"


def test_with_namespaces_the_operator_has_no_right_anywhere_else(render: Render) -> None:
    objects = render({"watchNamespaces": ["team-a", "team-b"]})
    assert not kinds(objects, "ClusterRoleBinding")
    people = {"viewer", "author", "approver"}
    assert {body["metadata"]["name"].rpartition("-")[2] for body in kinds(objects, "ClusterRole")} == people
    bound = {(body["metadata"]["namespace"], body["roleRef"]["name"]) for body in kinds(objects, "RoleBinding")}
    assert bound == {
        ("team-a", "workitem-operator"),
        ("team-b", "workitem-operator"),
        ("workitem-operator", "workitem-operator-own"),
    }


def test_served_everywhere_or_in_namespaces_the_rules_are_the_same(render: Render) -> None:
    everywhere = only(render(), "ClusterRole", "workitem-operator")["rules"]
    namespaced = render({"watchNamespaces": ["team-a"]})
    assert only(namespaced, "Role", "workitem-operator")["rules"] == everywhere


def test_where_several_stand_by_one_leads_by_a_lease_that_it_may_hold(render: Render) -> None:
    objects = render({"replicas": 2})
    name = environment(objects)["WORKITEMS_LEASE"]
    rules = [rule for rule in only(objects, "Role")["rules"] if rule["resources"] == ["leases"]]
    assert [(rule["verbs"], rule.get("resourceNames")) for rule in rules] == [
        (["create"], None),
        (["get", "update"], [name]),
    ]
    own = [rule for rule in only(objects, "Role")["rules"] if rule["resources"] == ["pods"]]
    assert [rule["verbs"] for rule in own] == [["patch"]]
    alone = render()
    assert "WORKITEMS_LEASE" not in environment(alone)
    assert "leases" not in json.dumps(alone)
    strategy = only(alone, "Deployment")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}, "the old one ends first"
    # From several back to one: fields of RollingUpdate stay behind, and the API server takes none beside Recreate.
    assert strategy["type"] == only(objects, "Deployment")["spec"]["strategy"]["type"]


def test_webhooks_reach_the_operator_that_leads(render: Render) -> None:
    for values in ("webhooks by an Ingress", "webhooks by a route, two operators"):
        objects = render(MATRIX[values])
        service = only(objects, "Service", "workitem-operator-webhooks")
        leads = service["spec"]["selector"].pop(leading.LEADER_LABEL, None)
        assert leads == ("true" if "two" in values else None)
        labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        (port,) = service["spec"]["ports"]
        (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
        ports = {each["name"]: str(each["containerPort"]) for each in container["ports"]}
        assert ports[port["targetPort"]] == environment(objects)["WORKITEMS_WEBHOOK_PORT"]
        assert environment(objects)["WORKITEMS_WEBHOOK_URL"] == "https://workitems.example.com"
        allowed = only(objects, "NetworkPolicy")["spec"]["ingress"][0]["ports"]
        assert {each["port"] for each in allowed} == ports.keys()
    ingress = only(render(MATRIX["webhooks by an Ingress"]), "Ingress")["spec"]
    (path,) = ingress["rules"][0]["http"]["paths"]
    assert path["path"] == "/hooks/"
    assert path["backend"]["service"] == {"name": "workitem-operator-webhooks", "port": {"name": "webhooks"}}
    (rule,) = only(render(MATRIX["webhooks by a route, two operators"]), "HTTPRoute")["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "workitem-operator-webhooks", "port": 80}]
    assert "WORKITEMS_WEBHOOK_PORT" not in environment(render())


def test_no_rule_says_everything_and_secrets_are_read_one_by_one(render: Render) -> None:
    named = {"rbac": {"secretNames": ["shop-git"]}}
    objects = render(named)
    rules = [rule for kind in ("ClusterRole", "Role") for body in kinds(objects, kind) for rule in body["rules"]]
    assert not [rule for rule in rules if "*" in json.dumps(rule)]
    (secrets,) = [rule for rule in rules if "secrets" in rule["resources"]]
    assert (secrets["verbs"], secrets["resourceNames"]) == (["get"], ["shop-git"])

    def secrets_of(values: JSON) -> JSON:
        (found,) = [r for r in only(render(values), "ClusterRole", "workitem-operator")["rules"] if "secrets" in str(r)]
        return dict(found)

    model = {"modelCredentials": {"secretName": "model"}}
    for values in ({}, model):
        assert secrets_of(values) == {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    assert secrets_of({**named, **model})["resourceNames"] == ["shop-git", "model"]


def test_people_see_write_and_approve_by_their_role(render: Render) -> None:
    def allowed(role: str) -> set[tuple[str, str]]:
        rules = only(render(), "ClusterRole", f"workitem-operator-{role}")["rules"]
        assert all(rule["apiGroups"] == [OURS] for rule in rules)
        return {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}

    every = {"workitems", "repositories", "pipelines", "decisions"}
    seen = {(verb, kind) for verb in ("get", "list", "watch") for kind in every}
    written = {(v, k) for v in ("create", "update", "patch", "delete") for k in every - {"decisions"}}
    assert allowed("viewer") == seen
    assert allowed("author") == seen | written | {("create", "decisions")}
    assert allowed("approver") == seen | {("create", "decisions"), ("approve", "workitems")}


def test_our_roles_join_the_clusters_own_unless_told_not_to(render: Render) -> None:
    def joined(values: JSON) -> dict[str, set[str]]:
        prefix = "rbac.authorization.k8s.io/aggregate-to-"
        return {
            body["metadata"]["name"].rpartition("-")[2]: {
                label.removeprefix(prefix) for label in body["metadata"]["labels"] if label.startswith(prefix)
            }
            for body in kinds(render(values), "ClusterRole")
            if body["metadata"]["name"] != "workitem-operator"
        }

    assert joined({}) == {"viewer": {"view", "edit", "admin"}, "author": {"edit", "admin"}, "approver": {"admin"}}
    assert not any(joined({"rbac": {"people": {"aggregate": False}}}).values())


def test_the_default_pipeline_is_the_contracts_with_what_the_values_change(render: Render) -> None:
    def spec(values: JSON) -> JSON:
        body = yaml.safe_load(only(render(values), "ConfigMap", "workitem-operator-pipeline")["data"]["pipeline.yaml"])
        Pipeline.parse(body)
        assert body["metadata"] == {"name": "default"}
        return dict(body["spec"])

    contract = yaml.safe_load(PIPELINE.read_text())["spec"]
    assert spec({}) == contract
    changed = spec(MATRIX["another Pipeline"])
    assert changed == {**contract, "queueName": "q", "limits": {**contract["limits"], "maxConcurrentRuns": 2}}


def test_a_changed_pipeline_restarts_the_operator_which_reads_it_once(render: Render) -> None:
    def template(values: JSON) -> JSON:
        return dict(only(render(values), "Deployment")["spec"]["template"])

    assert template({}) == template({"podDisruptionBudget": {"enabled": True}})
    assert template({}) != template(MATRIX["another Pipeline"])


def run_policy(objects: list[JSON]) -> JSON:
    return only(objects, "NetworkPolicy", "workitem-operator-runs")


def test_a_run_may_reach_what_the_values_say_and_nothing_may_reach_it(render: Render) -> None:
    policy = run_policy(render(MATRIX["secrets by name, bridges, other egress"]))
    assert policy["metadata"]["namespace"] == "team-a"
    assert policy["spec"]["ingress"] == []
    ports = [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]
    assert policy["spec"]["egress"] == [
        {"to": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}], "ports": ports},
        {"to": [{"ipBlock": {"cidr": "10.1.2.0/24"}}]},
    ]
    everywhere = [body for body in kinds(render(), "NetworkPolicy") if body["metadata"]["name"].endswith("-runs")]
    assert everywhere == []


def test_no_rule_about_name_servers_says_every_address(render: Render) -> None:
    nowhere = {"watchNamespaces": ["team-a"], "networkPolicy": {"runs": {"dns": {"to": []}, "allow": []}}}
    assert run_policy(render(nowhere))["spec"]["egress"] == []
    for values in MATRIX.values():
        policies = [
            body for body in kinds(render(values), "NetworkPolicy") if body["metadata"]["name"].endswith("-runs")
        ]
        assert all(rule["to"] for policy in policies for rule in policy["spec"]["egress"])


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"])
def test_no_clouds_metadata_is_among_what_a_run_may_reach(render: Render, address: str) -> None:
    rules = run_policy(render({"watchNamespaces": ["team-a"]}))["spec"]["egress"]
    blocks = [peer["ipBlock"] for rule in rules for peer in rule["to"] if "ipBlock" in peer]
    metadata = ipaddress.ip_address(address)

    def reached(block: JSON) -> bool:
        return metadata in ipaddress.ip_network(block["cidr"]) and not any(
            metadata in ipaddress.ip_network(left_out) for left_out in block.get("except", ())
        )

    assert not any(map(reached, blocks))
    assert sum(metadata in ipaddress.ip_network(block["cidr"]) for block in blocks) == 1


def test_the_example_of_a_narrow_policy_is_the_charts(render: Render) -> None:
    example = yaml.safe_load((sources.ROOT / "docs" / "examples" / "networkpolicy.yaml").read_text())
    allow = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "GIT_NAMESPACE"}}}]
    narrow = {"watchNamespaces": ["team-a"], "networkPolicy": {"runs": {"allow": allow}}}
    assert example["spec"] == run_policy(render(narrow))["spec"]


def test_what_is_watched_is_what_the_operator_serves(render: Render) -> None:
    objects = render(MATRIX["watched"])
    monitor, service = only(objects, "ServiceMonitor"), only(objects, "Service", "workitem-operator")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    rules = only(objects, "PrometheusRule")["spec"]
    assert rules == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    shown = only(objects, "ConfigMap", "workitem-operator-dashboard")
    assert json.loads(shown["data"]["workitems.json"]) == dashboard.dashboard()
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_policies_hold_where_the_operator_serves_and_the_agents_one_where_its_pipelines_are(render: Render) -> None:
    held = {}
    for binding in kinds(render({"watchNamespaces": ["team-a"]}), "ValidatingAdmissionPolicyBinding"):
        (expression,) = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
        held[binding["metadata"]["name"].rpartition("-")[2]] = expression["values"]
    assert held == {"decisions": ["team-a"], "agents": ["team-a", "workitem-operator"]}
    assert not [b for b in kinds(render(), "ValidatingAdmissionPolicyBinding") if "matchResources" in b["spec"]]


def test_agents_are_kept_from_everything_that_can_be_written(render: Render) -> None:
    (rule,) = only(render(), "ValidatingAdmissionPolicy", "workitem-operator-agents")["spec"]["matchConstraints"][
        "resourceRules"
    ]
    written = set()
    for body in map(yaml.safe_load, crd.render().values()):
        plural, (version,) = body["spec"]["names"]["plural"], body["spec"]["versions"]
        written |= {plural, *(f"{plural}/{part}" for part in version.get("subresources", ()))}
    assert set(rule["resources"]) == written
    assert set(rule["operations"]) == {"CREATE", "UPDATE", "DELETE"}


ACCOUNT = "system:serviceaccount:team-a:flux"


def test_where_nobody_elsewhere_is_trusted_every_account_is_refused_that_is_not_named(render: Render) -> None:
    values = {"admission": {"trustElsewhere": False, "bridges": ["chat"], "trustedServiceAccounts": [ACCOUNT]}}
    policy = only(render(values), "ValidatingAdmissionPolicy", "workitem-operator-agents")["spec"]
    assert [each["expression"] for each in policy["validations"]] == ["false"]
    (_, named) = policy["matchConditions"]
    operator = "system:serviceaccount:workitem-operator:workitem-operator"
    assert all(f'"{each}"' in named["expression"] for each in (operator, ACCOUNT, "chat"))


def test_two_releases_share_nothing_cluster_wide(render: Render) -> None:
    values = {"crds": {"install": False}}
    first, second = render(values, "workitem-operator", "one"), render(values, "workitem-operator", "two")
    names = [
        {(b["kind"], b["metadata"]["name"]) for b in each if b["kind"] in CLUSTER_WIDE} for each in (first, second)
    ]
    assert names[0]
    assert not names[0] & names[1]


def brought(**spec: Any) -> JSON:
    """Values that change the default Pipeline."""
    return {"pipelines": {"default": {"spec": spec}}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"watchNamespace": ["a"]}, "watchNamespace"),
        ({"settings": {"sweepSecond": 1}}, "sweepSecond"),
        ({"image": {"digest": "abc"}}, "/image/digest"),
        ({"admission": {"trustedServiceAccounts": ["flux"]}}, "trustedServiceAccounts"),
        ({"watchNamespaces": "a"}, "/watchNamespaces"),
        ({"networkPolicy": {"runs": {"alow": []}}}, "alow"),
        ({"networkPolicy": {"runs": {"dns": {"ports": []}}}}, "/networkPolicy/runs/dns/ports"),
        ({"webhooks": {"enabled": True, "ingress": {"enabled": True}}}, "/webhooks/host"),
        ({"modelCredentials": {"apiKey": "a", "authToken": "b"}}, "/modelCredentials"),
        ({"webhooks": {"host": "a.b", "httpRoute": {"enabled": True}}}, "/webhooks"),
        (brought(limits={"maxRun": 3}), "/pipelines/default/spec/limits': additional properties 'maxRun'"),
        (brought(limits={"maxRuns": "many"}), "/pipelines/default/spec/limits/maxRuns"),
        (brought(stages=[{"nam": "a"}]), "/pipelines/default/spec/stages/0"),
        (brought(agents={"developer": {"claudeCode": {"modle": "x"}}}), "/agents/developer/claudeCode"),
        ({"podSecurityContext": {"runAsUsr": 1}}, "runAsUsr"),
        ({"securityContext": {"capabilities": {"drp": ["ALL"]}}}, "/securityContext/capabilities"),
        ({"tolerations": [{"kye": "system"}]}, "/tolerations/0"),
        ({"affinity": {"nodeAfinity": {}}}, "nodeAfinity"),
        ({"topologySpreadConstraints": [{"maxSkew": 1}]}, "topologyKey"),
        ({"resources": {"limit": {"memory": "1Gi"}}}, "'limit'"),
        ({"extraEnv": [{"name": "A", "valeu": "b"}]}, "/extraEnv/0"),
        ({"networkPolicy": {"runs": {"allow": [{"ipBlock": {"cdir": "10.0.0.0/8"}}]}}}, "/allow/0/ipBlock"),
    ],
)
def test_a_mistake_in_the_values_is_refused_by_name(helm: Path, values: JSON, words: str) -> None:
    command = [str(helm), "template", "x", str(CHART), "--values=-"]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert words in done.stderr


def test_the_plain_manifests_are_the_charts(helm: Path) -> None:
    written = (DEPLOY / "operator.yaml").read_text(encoding="utf-8")
    assert written == plain.rendered(helm), "deploy/operator.yaml is not what the chart says: run `make manifests`"
    assert "helm" not in written.replace("helm test", "").lower()


def test_the_kustomization_names_every_manifest() -> None:
    resources = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())["resources"]
    assert {*resources, "kustomization.yaml"} == {path.name for path in DEPLOY.iterdir()}
