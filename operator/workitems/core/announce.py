"""What a step is worth telling: from the status before and after it to the effects of the tracker and the notifiers.

Only differences are told, and they are told in the same write that makes them, so that a kill can neither lose nor
double them. An effect carries the event's name and the words it needs, never the rendered text: language and templates
are those of the moment in which it is sent. At most one comment a transition, the most telling one; a notifier gets
what it asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from workitems.api import Effect, Phase, Repository, WorkItem, WorkItemStatus
from workitems.api.integrations import Notifier, PlaneStates
from workitems.core import effects, happenings
from workitems.core.conditions import FINISHED
from workitems.core.facts import Facts
from workitems.core.happenings import BRIDGE, LONGEST_WORD, WORD_CHARACTERS, Happening

COMMENT = "TrackerComment"
STATE = "TrackerState"
TRACKER_STATE = "tracker-state"
"""Target of the state: a lane of its own, so that a misspelled state does not keep comments back."""
MOST_WORDS = 16
STAGE_STATE = "stage:"
CHANNEL = "channel"
"""A word of a message: the list of notifiers may be another when it is sent."""
_FINAL_STATES = {Phase.DONE: "done", Phase.ABORTED: "aborted"}


def announced(facts: Facts, after: WorkItemStatus) -> WorkItemStatus:
    """`after` with what is to be told about the way to it."""
    if facts.item.metadata.deletion_timestamp is not None:
        return after
    number = after.told + 1
    new: list[Effect] = []
    if facts.item.spec.external_ref is not None and (key := _state_to_tell(facts, after)) is not None:
        new.append(Effect(id=f"state-{number}", kind=STATE, target=TRACKER_STATE, params={"state": key}))
    if facts.repository is not None:
        new += _messages(facts.repository, facts, after, number)
    if not new:
        return after
    kept = after.effects
    for effect in new:
        kept = effects.intended(kept, effect)
    return after.model_copy(update={"effects": kept, "told": number})


def _state_to_tell(facts: Facts, after: WorkItemStatus) -> str | None:
    """The issue's new state as a key of PlaneStates: another than before, or than was told last; None: as it is.

    Who approves by a move takes the issue away from where it stands, whatever becomes of the approval.
    """
    before, told = facts.item.status, [effect for effect in after.effects if effect.kind == STATE]
    if facts.repository is None:
        # How its states are called nobody knows now, but an item that is over is not looked at again.
        ends = after.phase in FINISHED and before.phase not in FINISHED
        return _FINAL_STATES[after.phase] if ends and told else None
    plane = facts.repository.spec.plane
    if plane is None:
        return None
    key, old = state_key(after, plane.states), state_key(before, plane.states)
    # What changed while the Repository was not there was not told then.
    stale = bool(told) and told[-1].params["state"] != key
    moved = after.phase is Phase.IN_REVIEW and _heard_in_tracker(before, after)
    return key if key != old or stale or moved else None


def _heard_in_tracker(before: WorkItemStatus, after: WorkItemStatus) -> bool:
    """Whether this step records what somebody said in the tracker."""
    known = {record.uid for record in before.decisions}
    return any(record.uid not in known and record.by.startswith(BRIDGE) for record in after.decisions)


def _messages(repository: Repository, facts: Facts, after: WorkItemStatus, number: int) -> Iterator[Effect]:
    """The comments and the notifiers' messages about this step."""
    happened = list(happenings.happenings(facts, after))
    if repository.spec.plane is not None and facts.item.spec.external_ref is not None:
        told = [happening for happening in happened if happening.comment]
        # Decisions are answered one by one; of the rest, the first says most.
        for index, happening in enumerate((*_answers(told), *_others(told)[:1])):
            yield _effect(f"comment-{number}-{index}-{happening.event}", COMMENT, effects.TRACKER, happening)
    for index, notifier in enumerate(repository.spec.notify):
        for happening in _wanted(notifier, happened):
            target = f"notify-{index}"
            to = replace(happening, words={CHANNEL: channel_of(notifier), **happening.words})
            yield _effect(f"{target}-{number}-{happening.event}", effects.NOTIFY, target, to)


def state_key(status: WorkItemStatus, states: PlaneStates) -> str | None:
    """Which of the configured states the issue should be in, as a key of PlaneStates; None: whichever it is in."""
    match status.phase:
        case Phase.DONE | Phase.ABORTED:
            key = _FINAL_STATES[status.phase]
        case Phase.BLOCKED:
            key = "blocked"
        case Phase.NEEDS_INPUT:
            key = "needs_input"
        case Phase.IN_REVIEW:
            key = "in_review"
        case Phase.IN_PROGRESS | Phase.QUEUED if status.run is not None and status.run.kind == "Look":
            return None
        case Phase.IN_PROGRESS | Phase.QUEUED:
            key = f"{STAGE_STATE}{status.stage}" if status.stage in states.stages else "in_progress"
        case Phase.PENDING | Phase.SUSPENDED:
            return None
    return key if state_named(key, states) is not None else None


def state_named(key: str, states: PlaneStates) -> str | None:
    """The tracker's name or id of a state, as the Repository says it now."""
    if key.startswith(STAGE_STATE):
        return states.stages.get(key.removeprefix(STAGE_STATE))
    name: str | None = getattr(states, key, None)
    return name


def word(params: dict[str, str], name: str) -> str:
    """One of an effect's words, put together again."""
    pieces = [params.get(name, "")]
    while (more := params.get(f"{name}.{len(pieces) + 1}")) is not None:
        pieces.append(more)
    return "".join(pieces)


def words(params: dict[str, str]) -> dict[str, str]:
    """All of an effect's words."""
    names = dict.fromkeys(name.partition(".")[0] for name in params)
    return {name: word(params, name) for name in names}


def channel_of(notifier: Notifier) -> str:
    """Whom a notifier tells, whatever its place in the list."""
    if notifier.telegram is not None:
        return f"telegram {notifier.telegram.chat_id} {notifier.telegram.message_thread_id or ''}".rstrip()
    if notifier.apprise is not None:
        return f"apprise {notifier.apprise.address.secret_name} {notifier.apprise.address.key}"
    return ""


def notifier_for(effect: Effect, notifiers: tuple[Notifier, ...]) -> int | None:
    """The place of the notifier that a message is for; None: it is gone, and the message is nobody else's to read."""
    wanted, index = effect.params.get(CHANNEL), int(effect.target.rpartition("-")[2])
    places = (index, *range(len(notifiers)))
    return next((at for at in places if at < len(notifiers) and channel_of(notifiers[at]) == wanted), None)


def comment_id(item: WorkItem, what: str) -> str:
    """External id by which a comment of this very item is found again; names are reused, uids are not."""
    return f"{item.metadata.uid}/{what}"[:255]


def _effect(effect_id: str, kind: str, target: str, happening: Happening) -> Effect:
    params: dict[str, str] = {"event": happening.event}
    for name, whole in happening.words.items():
        text = whole if len(whole) <= LONGEST_WORD else f"{whole[: LONGEST_WORD - 1]}…"
        for index in range(0, len(text), WORD_CHARACTERS):
            suffix = f".{index // WORD_CHARACTERS + 1}" if index else ""
            params[f"{name}{suffix}"] = text[index : index + WORD_CHARACTERS]
    return Effect(id=effect_id, kind=kind, target=target, params=dict(list(params.items())[:MOST_WORDS]))


def _answers(told: list[Happening]) -> list[Happening]:
    return [happening for happening in told if happening.event == "DecisionRefused"]


def _others(told: list[Happening]) -> list[Happening]:
    return [happening for happening in told if happening.event != "DecisionRefused"]


def _wanted(notifier: Notifier, happened: list[Happening]) -> Iterator[Happening]:
    chosen = [happening for happening in happened if happening.notify in notifier.events]
    # What stops the item says which gate failed: once is enough.
    stopped = any(happening.notify in ("Blocked", "InputWanted") for happening in chosen)
    for happening in chosen:
        if not (stopped and happening.notify == "GateFailed"):
            yield happening
