"""What Gitea's deliveries are about, and that no body of anybody raises anything but ValueError."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workitems.integrations.gitea_webhooks import GiteaWebhooks
from workitems.integrations.webhook import BRANCH, HEAD

HOOKS = GiteaWebhooks()
SHA = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
# Made by another program: printf '%s' '{"ref":"refs/heads/main"}' | openssl dgst -sha256 -hmac sesame
BODY = b'{"ref":"refs/heads/main"}'
SIGNATURE = "8c4fda51a2c194fec01b6177f40f0631177cca73c95e7b9b69c69fd3ae2ac329"
EVENTS = (
    *("push", "status", "pull_request", "pull_request_approved", "pull_request_rejected", "pull_request_comment"),
    *("issue_comment", "issues", "", "ping"),
)


def read(event: str, payload: Any) -> set[tuple[str, str]]:
    return set(HOOKS.read({"X-Gitea-Event": event}, json.dumps(payload).encode()).about)


def pull(ref: str = "feature/x") -> dict[str, Any]:
    return {"number": 3, "head": {"ref": ref, "sha": SHA}, "base": {"ref": "main"}}


@pytest.mark.parametrize(
    ("event", "payload", "about"),
    [
        ("push", {"ref": "refs/heads/feature/x", "after": SHA}, {(BRANCH, "feature/x")}),
        ("push", {"ref": "refs/tags/v1", "after": SHA}, set()),
        ("status", {"sha": SHA, "state": "success"}, {(HEAD, SHA)}),
        ("pull_request", {"action": "closed", "pull_request": pull()}, {(BRANCH, "feature/x")}),
        ("pull_request_approved", {"action": "reviewed", "pull_request": pull()}, {(BRANCH, "feature/x")}),
        ("pull_request_rejected", {"action": "reviewed", "pull_request": pull()}, {(BRANCH, "feature/x")}),
        ("pull_request_comment", {"action": "reviewed", "pull_request": pull()}, {(BRANCH, "feature/x")}),
        ("issue_comment", {"is_pull": True, "pull_request": pull()}, {(BRANCH, "feature/x")}),
        ("issue_comment", {"is_pull": False, "issue": {"number": 1}}, set()),
        ("fork", {"anything": 1}, set()),
    ],
)
def test_a_delivery_names_the_branch_or_the_commit(event: str, payload: Any, about: set[tuple[str, str]]) -> None:
    assert read(event, payload) == about


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
payloads = json_values | st.fixed_dictionaries(
    {},
    optional={
        "ref": json_values | st.just("refs/heads/x"),
        "sha": json_values | st.just(SHA),
        "is_pull": st.booleans(),
        "pull_request": json_values | st.fixed_dictionaries({"head": json_values}),
    },
)


@pytest.mark.slow
@given(event=st.sampled_from(EVENTS), body=payloads.map(lambda p: json.dumps(p).encode()) | st.binary(max_size=200))
def test_whatever_comes_it_is_about_something_plausible_or_refused(event: str, body: bytes) -> None:
    try:
        delivery = HOOKS.read({"X-Gitea-Event": event}, body)
    except ValueError:
        return
    for field, value in delivery.about:
        assert field in (BRANCH, HEAD)
        assert 0 < len(value) <= 255
        assert value.isprintable()


@pytest.mark.parametrize("header", ["X-Gitea-Signature", "X-Hub-Signature-256"])
def test_a_signature_is_checked_over_the_raw_body(header: str) -> None:
    prefix = "sha256=" if header.startswith("X-Hub") else ""
    assert HOOKS.verify({header: prefix + SIGNATURE}, BODY, b"sesame")
    assert not HOOKS.verify({header: prefix + SIGNATURE}, BODY + b"\n", b"sesame")
    assert not HOOKS.verify({header: prefix + SIGNATURE}, BODY, b"open")
    assert not HOOKS.verify({}, BODY, b"sesame")
