"""The outbox in status: a bounded list of what is to happen outside the cluster, and what became of it.

An effect is written in the same status as the transition that decided it, and carried out afterwards by the loop's
`outbox.py`. So a kill anywhere leaves it Intended: it is looked up outside, and repeated where it is not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from workitems.api import EFFECTS_KEPT, EFFECTS_WAITING, Effect, WorkItemStatus
from workitems.core import conditions
from workitems.core.facts import EffectOutcome

DELIVERED = "EffectsDelivered"
"""The condition that tells whether the outside knows what it should; never part of Ready."""
WITHDRAWN = "Withdrawn"
"""Reason of an effect that the item no longer wants."""
FORGE = "forge"
TRACKER = "tracker"
"""Targets; those of notifiers are `notify-<index>`."""
NOTIFY = "Notify"
"""Kind of an effect that cannot be looked up: carried out at most once."""

PATIENT = ("TrackerState", "TrackerComment")
"""Kinds that are told however late: nothing else says it, and they may be repeated."""
REQUESTS = ("ApprovalWanted", "QuestionsAsked")
"""Events of comments whose answers are bound to what they name (`inbox.py`)."""
REQUESTS_KEPT = 10
MENDABLE = frozenset(
    {
        *("TokenRefused", "RightsMissing", "StateNotFound", "SecretNotFound", "SecretKeyMissing", "SecretUnreadable"),
        *("CABundleMissing", "CABundleInvalid", "Forbidden"),
    }
)
"""Reasons that are about the access and not about what is told: a person mends them, perhaps after the weekend."""


def find(effects: Iterable[Effect], effect_id: str) -> Effect | None:
    """The effect of that id."""
    return next((effect for effect in effects if effect.id == effect_id), None)


def replaced(effects: tuple[Effect, ...], new: Effect) -> tuple[Effect, ...]:
    """The effects with the one of the same id replaced."""
    return tuple(new if effect.id == new.id else effect for effect in effects)


def intended(effects: tuple[Effect, ...], new: Effect) -> tuple[Effect, ...]:
    """The effects and a new one at the end, which displaces one of the same id that is over.

    Within the cluster names are never used again: what is over there stays over. A new state of the tracker displaces
    one that still waits: the newest counts.
    """
    old = find(effects, new.id)
    if old is not None and (old.state == "Intended" or not new.target):
        return effects
    kept = tuple(effect for effect in effects if effect.id != new.id and not _outdated_by(new, effect))
    if _is_news(new) and _news(kept) >= EFFECTS_WAITING:
        return _bounded(_with_its_share(kept, new))
    return _bounded((*kept, new))


def _with_its_share(kept: tuple[Effect, ...], new: Effect) -> tuple[Effect, ...]:
    """The effects where there is no room: of the target that has most waiting, the newest is left out.

    So what waits for a chat that is gone never keeps the tracker's comments out.
    """
    queues = Counter(effect.target for effect in (*waiting(kept), new) if _is_news(effect))
    longest = max(queues, key=lambda target: (queues[target], target == new.target))
    if longest == new.target:
        return kept
    surplus = [effect.id for effect in waiting(kept) if effect.target == longest][-1]
    return (*(effect for effect in kept if effect.id != surplus), new)


def _asks(effect: Effect) -> bool:
    return effect.kind == "TrackerComment" and effect.params.get("event") in REQUESTS


def _is_news(effect: Effect) -> bool:
    """Whether it tells somebody something; the item does not wait for that, as it waits for its forge."""
    return effect.target not in ("", FORGE)


def _news(effects: Iterable[Effect]) -> int:
    """How many of those wait."""
    return sum(_is_news(effect) and effect.state == "Intended" for effect in effects)


def _outdated_by(new: Effect, effect: Effect) -> bool:
    same = (effect.target, effect.kind) == (new.target, new.kind)
    return same and effect.state == "Intended" and new.kind in NEWEST_WINS


NEWEST_WINS = ("TrackerState", "PullRequest", "PullRequestText")
"""Kinds of which only the newest matters: each says all of it."""


def _bounded(effects: tuple[Effect, ...]) -> tuple[Effect, ...]:
    """Without the oldest of those that are over, where they are too many; Done ones go first.

    The newest requests stay, however long they wait for their answers: without them nobody knows what was asked.
    """
    over = [effect for effect in effects if effect.state != "Intended"]
    kept = [effect.id for effect in over if _asks(effect)][-REQUESTS_KEPT:]
    rest = sorted((effect for effect in over if effect.id not in kept), key=lambda effect: effect.state != "Done")
    surplus = {effect.id for effect in rest[: max(len(over) - EFFECTS_KEPT, 0)]}
    return tuple(effect for effect in effects if effect.id not in surplus)


def folded(effects: tuple[Effect, ...], outcome: EffectOutcome) -> tuple[Effect, ...]:
    """The effects with what became of one of them."""
    effect = find(effects, outcome.id)
    if effect is None or effect.state in ("Done", "Unknown"):
        return effects
    if effect.state == "Failed" and outcome.state != "Done":
        # Withdrawn while it was under way; that it was carried out all the same is worth knowing, a failure is not.
        return effects
    update = {
        "state": outcome.state,
        "attempts": outcome.attempts,
        "refusals": outcome.refusals,
        "ref": outcome.ref or effect.ref,
        "next_attempt_at": outcome.next_attempt_at,
        "reason": outcome.reason[:253] if outcome.reason else None,
        "last_error": outcome.error[:4096] if outcome.error else None,
    }
    # Through the model: a moment is in whole seconds there, as the API server gives it back.
    return _bounded(replaced(effects, Effect.model_validate({**effect.model_dump(), **update})))


def waiting(effects: Iterable[Effect]) -> tuple[Effect, ...]:
    """Those that are to be carried out outside the cluster."""
    return tuple(effect for effect in effects if effect.target and effect.state == "Intended")


def next_attempt(effects: Iterable[Effect], now: datetime) -> datetime | None:
    """The earliest moment at which one that failed is tried again; what is due already is under way."""
    moments = [e.next_attempt_at for e in waiting(effects) if e.next_attempt_at is not None and e.next_attempt_at > now]
    return min(moments, default=None)


def described(status: WorkItemStatus, generation: int, now: datetime) -> WorkItemStatus:
    """The status with `outbox` and the condition EffectsDelivered as its effects are."""
    # Those within the cluster too: an item that is over is found again by this alone.
    pending = any(effect.state == "Intended" for effect in status.effects)
    status = status.model_copy(update={"outbox": "Pending" if pending else None})
    if not any(effect.target for effect in status.effects):
        return status
    reason, message = _late(status.effects)
    entry = (DELIVERED, "True" if reason == "Delivered" else "False", reason, message)
    observed = conditions.observable(status, generation)
    return status.model_copy(update={"conditions": conditions.put(status.conditions, entry, observed, now)})


def _late(effects: tuple[Effect, ...]) -> tuple[str, str]:
    sentences: list[str] = []
    reasons: list[str] = []
    for target in dict.fromkeys(effect.target for effect in effects if effect.target):
        own = [effect for effect in effects if effect.target == target]
        queue = [effect for effect in own if effect.state == "Intended"]
        if queue and queue[0].attempts:
            first = queue[0]
            again = f", again at {first.next_attempt_at:%H:%M:%S} UTC" if first.next_attempt_at is not None else ""
            sentences.append(
                f"{target}: {len(queue)} waiting, the first is {first.id}, tried {first.attempts} times{again}: "
                f"{first.last_error}"
            )
            reasons.append(first.reason or "Late")
        elif not queue and own[-1].last_error and own[-1].reason != WITHDRAWN:
            end = "is done, but" if own[-1].state == "Done" else "was not carried out:"
            sentences.append(f"{target}: {own[-1].id} {end} {own[-1].last_error}")
            reasons.append(own[-1].reason or own[-1].state)
    if not sentences:
        return "Delivered", "what is outside the cluster is as it should be"
    if _news(effects) >= EFFECTS_WAITING:
        sentences.append(f"{EFFECTS_WAITING} wait: newer ones are left out")
    return reasons[0], "; ".join(sentences)[:8192]
