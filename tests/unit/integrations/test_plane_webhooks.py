"""What a delivery of Plane is about, and who may send one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.standins.plane import Plane
from workitems.integrations.plane_webhooks import ISSUE, PlaneWebhooks

SECRET = b"plane_wh_secret"


@pytest.fixture
def plane() -> Plane:
    return Plane(lambda: datetime(2026, 11, 22, 14, tzinfo=UTC))


def test_each_change_of_an_issue_is_about_it(plane: Plane) -> None:
    lead, issue = plane.person("lead"), plane.issue("One")
    plane.move(issue, "Done", lead)
    plane.edit(issue, lead, name="Two", description_html="<p>x</p>")
    comment = plane.say(issue, lead, "<p>Hello</p>")
    plane.rewrite(issue, comment, lead, "<p>Bye</p>")
    events = []
    for headers, body in plane.deliveries:
        assert PlaneWebhooks().verify(headers, body, SECRET)
        delivery = PlaneWebhooks().read(headers, body)
        assert delivery.about == {(ISSUE, issue)}
        events.append(delivery.event)
    assert events == ["issue", "issue", "issue", "issue", "issue_comment", "issue_comment"]


@pytest.mark.parametrize("signature", ["", "0" * 64, "ä"])
def test_who_does_not_know_the_secret_is_refused(plane: Plane, signature: str) -> None:
    plane.issue("One")
    headers, body = plane.deliveries[0]
    assert not PlaneWebhooks().verify({**headers, "X-Plane-Signature": signature}, body, SECRET)
    assert not PlaneWebhooks().verify(headers, body + b" ", SECRET)
    assert not PlaneWebhooks().verify(headers, body, b"other")
    assert not PlaneWebhooks().verify({}, body, SECRET)


def test_what_is_about_no_issue_is_about_nothing() -> None:
    assert PlaneWebhooks().read({"X-Plane-Event": "project"}, b"{}").about == frozenset()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"data": 5}', b'{"data": {"id": "../../x"}}', b'{"data": {"id": 5}}', b"[" * 100_000]
)
def test_what_plane_does_not_send_is_not_understood(body: bytes) -> None:
    with pytest.raises(ValueError, match="that Plane does not send"):
        PlaneWebhooks().read({"X-Plane-Event": "issue"}, body)
