"""What GitOps tools read in everything that the operator writes, by the reference logic, and after any edit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest

from tests.loop.lab import NAMESPACE, Lab
from tests.loop.store import DECISIONS, JSON, PIPELINES, REPOSITORIES, WORKITEMS
from tests.unit.core.world import FORGE, End, review

READ = {"Done": "Current", "Blocked": "Failed", "Aborted": "Failed"}
"""By phase, once the operator has seen the item as it is; everything else is InProgress."""
OVER = ("Done", "Aborted")

KStatus = Callable[[Iterable[JSON]], list[str]]


def phase(body: JSON) -> str:
    return str((body.get("status") or {}).get("phase", ""))


def edit(lab: Lab, item: str) -> None:
    """Somebody mends a typo in git."""
    generation = lab.store.get(WORKITEMS, NAMESPACE, item)["metadata"]["generation"]
    lab.store.patch(WORKITEMS, NAMESPACE, item, {"spec": {"description": f"Edited after generation {generation}."}})


def shown(lab: Lab) -> Iterator[tuple[JSON, str]]:
    """Every version of every item that anybody could read, and what should be read in it."""
    seen: dict[str, int] = {}
    for change in lab.store.changes:
        body = change.new
        if change.kind is not WORKITEMS or body is None:
            continue
        name, generation = body["metadata"]["name"], body["metadata"]["generation"]
        if change.old is not None and change.old.get("status") != body.get("status"):
            # Only the operator writes status, and only over the very version that it has read.
            seen[name] = generation
        waits = seen.get(name) != generation and phase(body) not in OVER
        yield body, "InProgress" if waits else READ.get(phase(body), "InProgress")


@pytest.mark.slow
async def test_an_edit_after_the_end_waits_for_nobody(lab: Lab) -> None:
    lab.repository()
    lab.pipeline()
    lab.approve_always()
    lab.start()
    lab.item("done")
    lab.item("aborted", suspend=True)
    lab.decide("aborted", "abort")
    await lab.until_phase("Done", "done")
    await lab.rest()
    writes = len(lab.server.writes())
    for item in ("done", "aborted"):
        assert lab.phase(item) in OVER
        edit(lab, item)
        status = lab.status(item)
        # Nobody looks at it any more, so nothing may say that somebody should.
        assert {status.observed_generation, *(c.observed_generation for c in status.conditions)} == {None}
        assert "observedGeneration" not in lab.store.get(WORKITEMS, NAMESPACE, item)["status"]
    await lab.rest(3600)
    assert len(lab.server.writes()) == writes
    await lab.stop()


async def test_the_reference_logic_reads_every_written_status(lab: Lab, kstatus: KStatus) -> None:
    lab.repository()
    lab.pipeline()
    lab.kubelet.scripts["reworked", "review"] = [review("REQUEST_CHANGES")]
    lab.kubelet.scripts["blocked", "testing"] = [End(exit_code=3)]
    lab.start(sweep_seconds=60.0)
    for name in ("reworked", "blocked", "aborted", "suspended", "stranded"):
        lab.item(name, branch=f"feature/{name}", **({"repository": "missing"} if name == "stranded" else {}))
    names = ("reworked", "blocked", "aborted", "suspended")
    await lab.until_phase("InReview", *names)
    lab.store.patch(WORKITEMS, NAMESPACE, "suspended", {"spec": {"suspend": True}})
    await edited_and_read(lab, kstatus)
    lab.approve_always(lambda item: item != "aborted")
    lab.decide("aborted", "abort")
    await lab.until_phase("Blocked", "blocked")
    await lab.until_phase("Done", "reworked")
    await lab.until_phase("Aborted", "aborted")
    await edited_and_read(lab, kstatus)
    lab.decide("blocked", "retry")
    lab.repository("missing")
    lab.store.patch(WORKITEMS, NAMESPACE, "suspended", {"spec": {"suspend": False}})
    await lab.until_phase("Done", "blocked", "suspended", "stranded")
    await edited_and_read(lab, kstatus)
    await lab.stop()

    versions = list(shown(lab))
    phases = {"Pending", "InProgress", "InReview", "Suspended", "Blocked", "Done", "Aborted"}
    assert {phase(body) for body, _ in versions} >= phases
    assert kstatus(body for body, _ in versions) == [expected for _, expected in versions]
    # The same, edited that very moment.
    newer = [{**body, "metadata": {**body["metadata"], "generation": 99}} for body, _ in versions]
    expected = [READ[phase(body)] if phase(body) in OVER else "InProgress" for body in newer]
    assert kstatus(newer) == expected
    others = [c.new for c in lab.store.changes if c.kind in (DECISIONS, PIPELINES, REPOSITORIES) and c.new is not None]
    assert set(kstatus(others)) == {"Current"}


async def edited_and_read(lab: Lab, kstatus: KStatus) -> None:
    """Edit every item where it stands: a moment later it reads as before, so nobody waits for ever."""
    await lab.rest()
    names = [body["metadata"]["name"] for body in lab.store.list(WORKITEMS)]
    before = [lab.phase(name) for name in names]
    for name in names:
        edit(lab, name)
    await lab.rest()
    bodies = [lab.store.get(WORKITEMS, NAMESPACE, name) for name in names]
    assert [phase(body) for body in bodies] == before
    assert kstatus(bodies) == [READ.get(name, "InProgress") for name in before]


@pytest.mark.parametrize("receives", [True, False])
async def test_the_reference_logic_reads_a_repository(lab: Lab, kstatus: KStatus, *, receives: bool) -> None:
    lab.repository_with_forge()
    receiver = {"webhook_port": lab.free_port(), "webhook_url": "https://x"}
    lab.start(sweep_seconds=86400, **(receiver if receives else {}))
    manage, leave = {"secretName": "shop-gitea", "manage": True}, {"secretName": "shop-gitea", "manage": False}
    for branch, webhooks in (("a", manage), ("b", manage), ("c", leave), ("d", leave), ("e", None), ("f", manage)):
        lab.repository(forge=FORGE, defaultBranch=branch, webhooks=webhooks)
        await lab.rest(10)
        body = lab.store.get(REPOSITORIES, NAMESPACE, "shop")
        # A webhook that cannot be registered, or verified where they are received, is said in its condition: the Secret
        # has no key for it. The Repository is used all the same.
        said = webhooks == manage or (receives and webhooks == leave)
        assert bool((body.get("status") or {}).get("conditions")) is said
        assert kstatus([body]) == ["Current"], body.get("status")
    await lab.stop()
