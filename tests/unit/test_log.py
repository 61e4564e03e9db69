import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from workitems import errors, log
from workitems.integrations.apprise import AppriseChannel
from workitems.settings import Settings


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in log.LEVELS}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, former in levels.items():
        logging.getLogger(name).setLevel(former)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def configured(log_format: str = "json", log_level: str = "info") -> io.StringIO:
    values: dict[str, Any] = {"log_format": log_format, "log_level": log_level}
    stream = io.StringIO()
    log.configure(Settings(namespace="w", runner_image="r", agent_image="a", **values), stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_our_lines_and_the_libraries_lines_have_the_same_fields() -> None:
    stream = configured()
    with structlog.contextvars.bound_contextvars(item="team/a"):
        structlog.stdlib.get_logger("workitems.reconcile").info("step", stage="review")
        logging.getLogger("kopf").warning("watching %s", "jobs")
    ours, theirs = lines(stream)
    assert ours["timestamp"].endswith("Z")
    assert {key: ours[key] for key in ("level", "logger", "event", "item", "stage")} == {
        "level": "info",
        "logger": "workitems.reconcile",
        "event": "step",
        "item": "team/a",
        "stage": "review",
    }
    assert (theirs["level"], theirs["logger"], theirs["event"]) == ("warning", "kopf", "watching jobs")
    assert theirs["item"] == "team/a"


def test_a_logger_without_a_name_made_before_the_setup_is_served_too() -> None:
    logger = structlog.get_logger("early")
    stream = configured()
    logger.info("hello")
    assert lines(stream)[0]["event"] == "hello"


def test_the_level_is_the_settings() -> None:
    stream = configured(log_level="warning")
    structlog.stdlib.get_logger("x").info("quiet")
    structlog.stdlib.get_logger("x").warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_no_body_of_an_answer_is_ever_logged() -> None:
    stream = configured(log_level="debug")
    logging.getLogger("kubernetes.aio.client.rest").debug("response body: %s", "secret")
    logging.getLogger("kopf.objects").info("Handler succeeded.")
    structlog.stdlib.get_logger("workitems").debug("ours")
    assert [line["event"] for line in lines(stream)] == ["ours"]


def test_a_traceback_is_one_json_string_and_readable_text() -> None:
    for log_format in ("json", "text"):
        stream = configured(log_format)
        absent: dict[str, str] = {}
        try:
            absent["spec"]
        except KeyError:
            structlog.stdlib.get_logger("x").exception("bug")
        if log_format == "json":
            assert "KeyError: 'spec'" in lines(stream)[0]["exception"]
        else:
            first, *rest = stream.getvalue().splitlines()
            assert first.endswith("level='error' logger='x' event='bug'")
            assert rest[-1] == "KeyError: 'spec'"


def test_no_value_can_forge_a_line_of_text() -> None:
    stream = configured("text")
    structlog.stdlib.get_logger("x").info("seen", message="a\nlevel='error' event='forged'")
    assert len(stream.getvalue().splitlines()) == 1


def test_what_json_does_not_know_is_written_as_text() -> None:
    stream = configured()
    structlog.stdlib.get_logger("x").info("set", value={1})
    assert lines(stream)[0]["value"] == "{1}"


def test_warnings_are_logged() -> None:
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", stacklevel=1)
    assert lines(stream)[0]["logger"] == "py.warnings"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "address", ["nonsense-s3cr3t", "tgram://s3cr3t/12345", "json://user:s3cr3t@127.0.0.1:9/s3cr3t"]
)
@pytest.mark.parametrize("level", ["info", "debug"])
async def test_no_address_of_apprise_is_ever_logged(address: str, level: str) -> None:
    stream = configured(log_level=level)
    with pytest.raises(errors.Permanent) as caught:
        await (await AppriseChannel.opened(address)).send("x")
    assert "s3cr3t" not in str(caught.value)
    assert "s3cr3t" not in stream.getvalue()
