"""crds/ is what the models say, the API server can take it, and it covers the contract's manifests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from workitems import crd
from workitems.api import Decision, Model, Pipeline, Repository, WorkItem, common

ROOT = Path(__file__).parents[2]
CONTRACT = ROOT / "tests" / "contract"
SHARED = ROOT.parent / "shared" / "contract"
LAST_APPLIED_LIMIT = 256 * 1024
PARSERS: dict[str, Callable[[dict[str, Any]], Model]] = {
    "WorkItem": WorkItem.parse,
    "Repository": Repository.parse,
    "Pipeline": Pipeline.parse,
    "Decision": Decision.parse,
}

RENDERED = {name: yaml.safe_load(text) for name, text in crd.render().items()}
SCHEMAS = {each["spec"]["names"]["kind"]: each["spec"]["versions"][0] for each in RENDERED.values()}


def walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from walk(node["additionalProperties"], f"{path}.*")


PARTS = [(kind + path, node) for kind in SCHEMAS for path, node in walk(SCHEMAS[kind]["schema"]["openAPIV3Schema"])]


def contract(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CONTRACT / name).read_text(encoding="utf-8")))


def filled(value: Any, key: str = "") -> Any:
    """The contract's `…` stands for anything; a time must be a time."""
    match value:
        case dict():
            return {name: filled(each, name) for name, each in value.items()}
        case list():
            return [filled(each) for each in value]
        case "…" if key.endswith("At") or key in {"at", "since", "phaseSince"}:
            return "2026-11-22T14:00:00Z"
    return value


@pytest.mark.parametrize("name", sorted(RENDERED))
def test_crds_are_what_the_models_say(name: str) -> None:
    written = (ROOT / "crds" / name).read_text(encoding="utf-8")
    assert written == crd.render()[name], f"crds/{name} is not what operator/workitems/api says: run `{crd.COMMAND}`"


def test_no_crd_is_left_over() -> None:
    assert {path.name for path in (ROOT / "crds").iterdir()} == set(RENDERED)


@pytest.mark.slow
def test_write_writes_what_render_says(tmp_path: Path) -> None:
    crd.write(tmp_path)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == crd.render()


@pytest.mark.slow
def test_client_side_apply_has_room_for_its_annotation() -> None:
    assert all(len(text.encode()) < LAST_APPLIED_LIMIT for text in crd.render().values())


def test_schemas_are_structural() -> None:
    for path, node in PARTS:
        assert not node.keys() & {"$ref", "$defs", "oneOf", "allOf", "not", "const", "title", common.PATTERN_MESSAGE}, (
            path
        )
        if node.get("x-kubernetes-int-or-string"):
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
            continue
        assert "anyOf" not in node, path
        assert node["type"] in {"object", "array", "string", "integer", "boolean"}, path
        assert ("items" in node) == (node["type"] == "array"), path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert set(node.get("required", ())) <= set(node.get("properties", ())), path


def test_lists_with_keys_never_miss_a_key() -> None:
    keyed = [(path, node["items"], node["x-kubernetes-list-map-keys"]) for path, node in PARTS if is_keyed(node)]
    assert len(keyed) > 8
    for path, item, keys in keyed:
        for key in keys:
            assert key in item["required"] or "default" in item["properties"][key], path


def test_every_list_map_and_text_of_a_spec_has_a_limit() -> None:
    # The API server multiplies them to find out what a CEL rule may cost.
    limits = {"array": "maxItems", "string": "maxLength", "integer": "maximum"}
    for path, node in PARTS:
        if ".spec" not in path or "enum" in node or path.endswith("tolerationSeconds"):
            continue
        limit = "maxProperties" if "additionalProperties" in node else limits.get(node.get("type", ""))
        assert limit is None or limit in node, path


def test_a_status_has_no_defaults_but_of_list_keys_and_what_says_unseen() -> None:
    found = [path for path, node in PARTS if ".status" in path and "default" in node]
    assert found == ["WorkItem.status", "WorkItem.status.decisions[].uid"]


def test_patterns_mean_the_same_to_the_api_server() -> None:
    for path, node in PARTS:
        rules = [rule["rule"] for rule in node.get("x-kubernetes-validations", ())]
        patterns = [node["pattern"]] if "pattern" in node else []
        patterns += [match[1] for rule in rules for match in re.finditer(r"matches\(r'([^']*)'\)", rule)]
        for pattern in patterns:
            assert not re.search(r"\(\?[=!<]", pattern), f"{path}: Go's regular expressions have no look-around"
            re.compile(pattern)
        if "pattern" in node:
            ends = (node["pattern"][0], node["pattern"][-1])
            assert ends == ("^", "$"), f"{path}: an unanchored pattern lets anything through"


def test_rules_have_a_sentence_and_blame_a_field_that_exists() -> None:
    for path, node in PARTS:
        for rule in node.get("x-kubernetes-validations", ()):
            assert len(rule["message"].split()) > 3, path
            at = node
            for name in rule.get("fieldPath", "").split(".")[1:]:
                at = at["properties"][name]


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_columns_and_selectable_fields_exist(kind: str) -> None:
    version = SCHEMAS[kind]
    known = {path for path, _ in walk(version["schema"]["openAPIV3Schema"])}
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    paths += [field["jsonPath"] for field in version.get("selectableFields", ())]
    for path in paths:
        assert re.sub(r"\[\?.*?\)\]", "[]", path) in known | {".metadata.creationTimestamp"}


def test_workitem_columns_are_the_contract_s() -> None:
    columns = SCHEMAS["WorkItem"]["additionalPrinterColumns"]
    narrow = [column["name"].upper() for column in columns if not column.get("priority")]
    wide = [column["name"].upper() for column in columns if column.get("priority")]
    assert narrow == ["STAGE", "PHASE", "REASON", "RUNS", "PR", "AGE"]
    assert wide == ["AGENT", "BRANCH", "HEAD", "COST", "MESSAGE"]


def test_names_are_the_contract_s() -> None:
    names = {each["spec"]["names"]["kind"]: each["spec"]["names"] for each in RENDERED.values()}
    assert {kind: each["shortNames"] for kind, each in names.items()} == {
        "WorkItem": ["wi"],
        "Repository": ["wirepo"],
        "Pipeline": ["wipl"],
        "Decision": ["widec"],
    }
    taken = {word for each in names.values() for word in (each["plural"], each["singular"], *each["shortNames"])}
    assert not taken & {category for each in names.values() for category in each["categories"]}


@pytest.mark.parametrize("name", ["workitem.yaml", "repository.yaml", "pipeline-default.yaml", "decisions.yaml"])
def test_the_contract_s_manifests_parse_and_keep_all_they_say(name: str) -> None:
    for manifest in contract(name):
        parsed = PARSERS[manifest["kind"]](manifest).to_json()
        assert contains(parsed["spec"], manifest["spec"])


def test_the_contract_s_status_parses_and_comes_back_in_its_shape() -> None:
    manifest, status = contract("workitem.yaml")[0], filled(contract("workitem-status.yaml")[0]["status"])
    parsed = WorkItem.parse({**manifest, "status": status}).to_json()
    assert contains(parsed["status"], status)


@pytest.mark.skipif(not SHARED.is_dir(), reason="a user's clone has no shared/ beside it")
def test_our_copy_of_the_contract_is_the_contract() -> None:
    ours = {path.name: path.read_bytes() for path in CONTRACT.iterdir()}
    assert ours == {path.name: path.read_bytes() for path in SHARED.iterdir()}


def is_keyed(node: dict[str, Any]) -> bool:
    return "x-kubernetes-list-map-keys" in node


def contains(whole: Any, part: Any) -> bool:
    """All that `part` says stands in `whole` too; null and absent are the same."""
    match part:
        case dict():
            return all(each is None or (key in whole and contains(whole[key], each)) for key, each in part.items())
        case list():
            return len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)
