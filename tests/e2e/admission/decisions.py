"""Decisions that admission must refuse, and edge cases that it must not."""

from __future__ import annotations

from tests.e2e.admission.cases import Bad, Good, Manifest, spec

KIND = "Decision"
UNION = "exactly one of approve, reject, answer, retry, sendBack, abort"
COMMIT = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def action(**fields: object) -> Manifest:
    """The Decision says this instead."""
    return spec(retry=None, **fields)


BAD = (
    Bad("no action", KIND, spec(retry=None), "spec", UNION),
    Bad("two actions", KIND, spec(abort={}), "spec", UNION),
    Bad("an action that does not exist", KIND, action(merge={}), "spec.merge", "unknown field"),
    Bad("an action without value", KIND, {"spec": {"retry": "now"}}, "spec.retry", "object"),
    Bad("an answer without words", KIND, action(answer={}), "spec.comment", "answer needs the answer in comment"),
    Bad("an answer of spaces", KIND, action(answer={}, comment=" \n"), "spec.comment", "answer needs the answer"),
    Bad("a reject without reason", KIND, action(reject={"gate": "g"}), "spec.comment", "reject needs the reason"),
    Bad("an approval of no gate", KIND, action(approve={"commit": COMMIT}), "spec.approve.gate", "Required value"),
    Bad("an approval of no commit", KIND, action(approve={"gate": "g"}), "spec.approve.commit", "Required value"),
    Bad(
        "an approval of a short hash",
        KIND,
        action(approve={"gate": "g", "commit": COMMIT[:10]}),
        "spec.approve.commit",
        "full hash",
    ),
    Bad(
        "an approval of a branch",
        KIND,
        action(approve={"gate": "g", "commit": "main"}),
        "spec.approve.commit",
        "full hash",
    ),
    Bad("a send-back to nowhere", KIND, action(sendBack={}), "spec.sendBack.stage", "Required value"),
    Bad("no item", KIND, spec(workItem=None), "spec.workItem", "Required value"),
    Bad("nobody who decides", KIND, spec(by=""), "spec.by", "at least 1 char"),
    Bad("a comment of 16 KiB and one byte", KIND, spec(comment="x" * 16385), "spec.comment", "16384"),
)

GOOD = (
    Good("an approval of a SHA-256 commit", KIND, action(approve={"gate": "g", "commit": COMMIT + "0" * 24})),
    Good("a send-back without words", KIND, action(sendBack={"stage": "development"})),
)
BRIDGED = Good("a bridge's user", KIND, spec(by="plane:lead@example.com"))
