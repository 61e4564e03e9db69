"""What counts as a verdict, and what only mentions one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workitems.core import verdicts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Verdict: APPROVED", ("APPROVED",)),
        ("verdict: PASS\r\n", ("PASS",)),
        ("VERDICT:FAIL", ("FAIL",)),
        ("# Review\n\n**Verdict:** APPROVED\n", ("APPROVED",)),
        ("**Verdict**: REQUEST_CHANGES", ("REQUEST_CHANGES",)),
        ("**Verdict: REQUEST_CHANGES**", ("REQUEST_CHANGES",)),
        ("## Verdict: `APPROVED` ##", ("APPROVED",)),
        ("### **Verdict:** _PASS_", ("PASS",)),
        ("Verdict: REQUEST_CHANGES_", ("REQUEST_CHANGES",)),
        ("---\nverdict: APPROVED\n---\ntext", ("APPROVED",)),
        ("\ufeff---\ntitle: x\nverdict: 'APPROVED' # final\n---\n", ("APPROVED",)),
        ('---\nverdict: "PASS"\n...\n', ("PASS",)),
        ("---\nverdict: PASS # not FAIL\n---\n", ("PASS",)),
        ("---\nverdict: APPROVED\n---\nVerdict: APPROVED", ("APPROVED",)),
        ("---\nverdict: APPROVED\n---\nVerdict: REQUEST_CHANGES", ("APPROVED", "REQUEST_CHANGES")),
        ("Verdict: A\nVerdict: B\nVerdict: A", ("A", "B")),
        ("\n".join(f"Verdict: V{n}" for n in range(9)), ("V0", "V1", "V2", "V3")),
        ("Verdict: APPROVED with comments", ("APPROVED with comments",)),
        ("Verdict: " + "X" * 100, ("X" * 63,)),
        ("Verdict: \x1b[31mPASS\x1b[0m", ("[31mPASS[0m",)),
        ("", ()),
        ("Verdict:", ()),
        ("Verdict: ** **", ()),
        ("Verdict\n\nAPPROVED", ()),
        ("I would not give the verdict: APPROVED", ()),
        ("The Verdict: APPROVED", ()),
        ("Verdicts: APPROVED", ()),
        ("> Verdict: APPROVED", ()),
        ("    Verdict: APPROVED", ()),
        ("---\n  verdict: APPROVED\n---\n", ()),
        ("Verdict - APPROVED", ()),
        ("x\u2028Verdict: APPROVED", ()),
        ("---\nverdict: APPROVED", ("APPROVED",)),
    ],
)
def test_verdicts(text: str, found: tuple[str, ...]) -> None:
    assert verdicts.find(text) == found


@given(st.text())
def test_any_text_gives_at_most_four_short_distinct_printable_values(text: str) -> None:
    found = verdicts.find(f"Verdict: {text}\n{text}")
    assert len(found) <= 4
    assert len(set(found)) == len(found)
    assert all(0 < len(value) <= 63 and value.isprintable() for value in found)
