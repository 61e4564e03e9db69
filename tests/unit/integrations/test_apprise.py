"""Other channels by apprise, the real library, to a server on loopback."""

from __future__ import annotations

import sys
import warnings

import pytest
from aiohttp import web

from tests.unit.integrations.scripted import serving
from workitems import errors
from workitems.integrations.apprise import AppriseChannel

with warnings.catch_warnings():
    # apprise 2 shims a module that Python 3.13 no longer has, and loads all its plugins with the first address.
    warnings.simplefilter("ignore", DeprecationWarning)
    import apprise

    apprise.Apprise().add("json://localhost")


async def test_a_message_arrives_as_text() -> None:
    async with serving() as server:
        server.answers = [web.Response()]
        address = server.url.replace("http://", "json://")
        channel = await AppriseChannel.opened(address)
        await channel.send("<b>et-12</b> a &lt; b")
    assert server.asked[0].body["message"] == "et-12 a < b"


async def test_what_is_not_sent_is_said() -> None:
    async with serving() as server:
        server.answers = [web.Response(status=500)]
        with pytest.raises(errors.Permanent, match="did not send") as caught:
            await AppriseChannel(server.url.replace("http://", "json://")).send("x")
    assert caught.value.reason == "NotSent"


def test_an_address_that_is_none_is_refused_without_being_shown() -> None:
    with pytest.raises(errors.Permanent) as caught:
        AppriseChannel("nonsense-s3cr3t")
    assert caught.value.reason == "AppriseAddressInvalid"
    assert "s3cr3t" not in str(caught.value)


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(errors.Permanent, match="--build-arg EXTRAS=apprise"):
        AppriseChannel("json://localhost")
