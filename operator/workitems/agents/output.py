"""What every agent CLI's module offers: how it is started, and what its output says about how it ended.

The output is read beside the agent while it works (`runner/stream.py`), line by line, and twice at once: as text that
a person can follow in the container's log, and as the facts of the run's end. It comes from a container in which an
agent did as it liked, so a reader takes every line for what it is at most: a claim, of any shape. It never raises.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from typing import Any, Protocol

from workitems.plain import readable
from workitems.protocol import Usage

JSON = dict[str, Any]

# How a run ended, as its output says. SUCCEEDED is believed only together with exit code 0.
SUCCEEDED = "Succeeded"
NO_RESULT = "NoResult"
KEY_REFUSED = "ModelKeyRefused"
OUT_OF_CREDIT = "OutOfCredit"
RATE_LIMITED = "ModelRateLimited"
OVERLOADED = "ModelOverloaded"
UNAVAILABLE = "ModelUnavailable"
UNREACHABLE = "ModelUnreachable"
MODEL_NOT_FOUND = "ModelNotFound"
REQUEST_REFUSED = "ModelRequestRefused"
PROMPT_TOO_LONG = "PromptTooLong"
MAX_TURNS = "MaxTurnsReached"
MAX_BUDGET = "MaxBudgetReached"
NO_WORK = "NoWorkDone"
TOOLS_DENIED = "ToolsDenied"
AGENT_ERROR = "AgentFailed"

RETRYABLE = frozenset({RATE_LIMITED, OVERLOADED, UNAVAILABLE, UNREACHABLE})
"""The model's side failed, not the agent: infrastructure, tried again with backoff."""

LINE_CHARACTERS = 400
MESSAGE_CHARACTERS = 500
TEXT_LINES = 40
LONGEST = 64 * 1024
"""Characters of a text that comes in pieces, kept until its line is complete."""


@dataclasses.dataclass(frozen=True)
class Ending:
    """What an agent's output says about its run. `message`: a sentence for a person, empty if it succeeded."""

    reason: str
    message: str = ""
    usage: Usage | None = None
    session: str | None = None
    model: str | None = None
    denied: tuple[str, ...] = ()
    """Tools that the agent was refused and never got to use."""


class Reader(Protocol):
    """Reads one run's output."""

    def feed(self, line: str) -> list[str]:
        """Take one line of output; the lines that a person should see in its place."""

    def end(self) -> Ending:
        """What all of it said."""


def from_status(status: int | None) -> str:
    """The reason behind an HTTP status of a model's API; None: there was no answer."""
    match status:
        case None:
            return UNREACHABLE
        case 401 | 403:
            return KEY_REFUSED
        case 402:
            return OUT_OF_CREDIT
        case 404:
            return MODEL_NOT_FOUND
        case 413:
            return PROMPT_TOO_LONG
        case 429:
            return RATE_LIMITED
        case 529:
            return OVERLOADED
        case _:
            return UNAVAILABLE if status >= 500 else REQUEST_REFUSED


_WORDS = (
    (
        re.compile(r"\b(401|403)\b|unauthori[sz]ed|api.?key|authenticat|logged in|login", re.IGNORECASE),
        KEY_REFUSED,
    ),
    (re.compile(r"\b402\b|credit|billing|insufficient.?(quota|funds)", re.IGNORECASE), OUT_OF_CREDIT),
    (
        re.compile(
            r"too long|context.?(length|window)|maximum (context|number of tokens)|too many tokens|token limit",
            re.IGNORECASE,
        ),
        PROMPT_TOO_LONG,
    ),
    (re.compile(r"\b429\b|rate.?limit|quota", re.IGNORECASE), RATE_LIMITED),
    (re.compile(r"\b529\b|overloaded|high demand", re.IGNORECASE), OVERLOADED),
    (re.compile(r"\b5\d\d\b|internal.?server.?error|unavailable", re.IGNORECASE), UNAVAILABLE),
    (re.compile(r"\b404\b|model.*(not found|does not exist)|not.?found.?error", re.IGNORECASE), MODEL_NOT_FOUND),
    (
        re.compile(
            r"\bECONN|ENOTFOUND|EAI_AGAIN|connection.?(refused|reset|error)|timed? ?out|\bdns\b|lookup address|"
            r"unable to connect|cannot connect|error sending request|fetch failed|stream (disconnected|closed)",
            re.IGNORECASE,
        ),
        UNREACHABLE,
    ),
    (re.compile(r"\b400\b|invalid.?(argument|request)", re.IGNORECASE), REQUEST_REFUSED),
)


def from_words(said: str) -> str:
    """The reason behind a CLI's own words, where it gives nothing better."""
    return next((reason for pattern, reason in _WORDS if pattern.search(said[:4000])), AGENT_ERROR)


def from_answer(status: int, said: str) -> str:
    """The reason behind an API's answer: its status, and its words where one status is sent for several reasons.

    Status 0: the CLI tells none, and its words are all there is.
    """
    found = from_words(said)
    if not status or (status in (400, 403, 429) and found in (KEY_REFUSED, OUT_OF_CREDIT, PROMPT_TOO_LONG)):
        return found
    return from_status(status)


def spoken(said: str) -> str:
    """What an error says to a person, where a CLI passes on the whole JSON of an API's answer."""
    try:
        body, _ = json.JSONDecoder().raw_decode(said, said.index("{"))
    except (ValueError, RecursionError):
        return said
    return text(inner(body, "error"), "message") or said


WHAT_TO_DO = {
    KEY_REFUSED: "the model's API refused the key: put a valid one into the agent's credentials Secret",
    OUT_OF_CREDIT: "the model's account is out of credit: top it up, or name another credentials Secret",
    RATE_LIMITED: "the model's API limits the rate of requests",
    OVERLOADED: "the model's API is overloaded",
    UNAVAILABLE: "the model's API failed",
    UNREACHABLE: "the model's API does not answer: check baseURL, DNS and the namespace's NetworkPolicies",
    MODEL_NOT_FOUND: "the model does not exist, or the key may not use it: correct the agent's model",
    REQUEST_REFUSED: "the model's API refused the request",
    PROMPT_TOO_LONG: "the prompt is longer than the model takes: shorten the description or the files in the prompt",
    MAX_TURNS: "the agent used up its turns: raise the agent's maxTurns, or make the task smaller",
    MAX_BUDGET: "the agent used up its budget: raise maxBudgetUSD, or the item's maxCostUSD, or make the task smaller",
    NO_WORK: "the agent ended without a single turn: it took the prompt for a command, or did nothing",
    TOOLS_DENIED: "the agent was denied tools and changed nothing: allow them in the agent's tools",
    AGENT_ERROR: "the agent ended with an error",
    NO_RESULT: "the agent ended without saying how: its output has no result",
}
"""Reason -> the sentence for a person; what the agent itself said follows it."""


def ending(reason: str, said: str, **facts: Any) -> Ending:
    """An Ending with the sentence for its reason, and after it what the CLI said itself."""
    if reason == SUCCEEDED:
        return Ending(reason, **facts)
    words = [part for part in (WHAT_TO_DO.get(reason, ""), readable(said, 300)) if part]
    return Ending(reason, readable(": ".join(words), MESSAGE_CHARACTERS), **facts)


def settled(found: Ending, *, changed: bool) -> Ending:
    """The ending once it is known whether the run changed anything: a refusal that the agent coped with is none."""
    if found.reason != SUCCEEDED or not found.denied or changed:
        return found
    facts = {"usage": found.usage, "session": found.session, "model": found.model, "denied": found.denied}
    return ending(TOOLS_DENIED, f"denied: {', '.join(found.denied)}", **facts)


def parsed(line: str) -> JSON | None:
    """A line of output as a JSON object; None for anything else."""
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def inner(value: Any, *names: str) -> JSON:
    """The object below `value` along `names`; empty where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def text(value: JSON, name: str) -> str:
    """A text field; empty where there is none."""
    found = value.get(name)
    return found if isinstance(found, str) else ""


def number(value: JSON, name: str) -> int:
    """A count; 0 where there is none that could be one."""
    return int(_bounded(value, name, 10**12))


def amount(value: JSON, name: str) -> float:
    """US dollars; 0 where there is no such number."""
    return float(_bounded(value, name, 10**9))


def _bounded(value: JSON, name: str, most: int) -> int | float:
    found = value.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return 0
    if isinstance(found, float) and not math.isfinite(found):
        return 0
    # An integer of JSON may be larger than any float: it is bounded before it becomes one.
    return min(max(found, 0), most)


def money(dollars: float) -> str:
    """Dollars as status carries them: decimal text, at most six places."""
    return f"{dollars:.6f}".rstrip("0").rstrip(".") or "0"


def objects(value: JSON, name: str) -> list[JSON]:
    """The objects in a list field."""
    found = value.get(name)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def shown(words: str, mark: str = "", most: int = TEXT_LINES) -> list[str]:
    """Text for the log: its lines, each with `mark` before it, long ones and later ones cut."""
    lines = [line for line in words.splitlines() if line.strip()]
    kept = [f"{mark}{readable(line, LINE_CHARACTERS)}" for line in lines[:most]]
    return [*kept, f"{mark}… {len(lines) - most} more lines"] if len(lines) > most else kept


def gist(value: Any, characters: int = 160) -> str:
    """A tool's arguments or result in one short line: the first text in it."""
    return readable(_first_text(value), characters)


def _first_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        values: Iterator[Any] = iter(value.values())
    elif isinstance(value, list):
        values = iter(value)
    else:
        return ""
    return next((found for found in (entry if isinstance(entry, str) else "" for entry in values) if found), "")
