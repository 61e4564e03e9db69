"""The reviewer: reads the difference, tries every acceptance criterion against the code, and says what it found.

It does not believe the tests alone: a criterion without a test is exactly what a developer in a hurry leaves out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hack.demo.agents.agent import Task

PREPARE = """
from shop.cart import Cart
from shop.checkout import Checkout, CheckoutError

def order(price=2000, *codes):
    cart = Cart()
    cart.add("pot", price)
    checkout = Checkout(cart)
    for code in codes:
        checkout.apply_code(code)
    return checkout

def refused(*codes):
    try:
        order(2000, *codes)
    except CheckoutError as error:
        return str(error)
    raise SystemExit(f"{codes} was taken, and should have been refused")
"""


class Probe(NamedTuple):
    """A criterion that a program can try: the words that name it, the code that tries it, the file to change."""

    words: str
    code: str
    file: str


DISCOUNTS, CHECKOUT, README = "src/shop/discounts.py", "src/shop/checkout.py", "README.md"
PROBES = (
    Probe(
        r"takes \d+ ?%",
        """
for code, rate in {rates}.items():
    assert order(2000, code).total().discount == 20 * rate, code
""",
        DISCOUNTS,
    ),
    Probe(
        r"upper and lower case|spaces",
        """
for code in {rates}:
    order(2000, "  " + code.lower() + " ")
""",
        DISCOUNTS,
    ),
    Probe(r"second code|one discount code", "refused('{first}', '{first}')", CHECKOUT),
    Probe(
        r"unknown code",
        """
for code in ("NOPE", "$(reboot)", '"quotes"'):
    assert code in refused(code), "the refusal does not name " + code
""",
        CHECKOUT,
    ),
    Probe(
        r"shipping",
        """
assert order(2000, "{first}").total().shipping == 490, "shipping was discounted"
assert order(5000, "{first}").total().shipping == 0, "shipping is no longer free from 50 €"
""",
        CHECKOUT,
    ),
    Probe(
        r"readme",
        """
import pathlib
text = pathlib.Path("README.md").read_text()
for code in {rates}:
    assert code in text, "README.md does not name " + code
""",
        README,
    ),
)


def work(task: Task) -> None:
    """Write 12-review.md with the verdict."""
    base = task.base()
    changed = task.git("diff", "--stat", base, "--", "src", "tests", "README.md").strip()
    task.say(f"the difference since {base[:12]}:\n{changed or '(nothing)'}")
    findings: list[str] = []
    if "src/" not in changed:
        findings.append(f"({CHECKOUT}): nothing in src/ has changed since {base[:12]}")
    removed = sum(
        int(line.split()[0]) for line in task.git("diff", "--numstat", "-R", base, "--", "tests").splitlines()
    )
    if removed:
        findings.append(f"(tests/): {removed} lines of tests were taken away")
    passed, output = task.make_test()
    if not passed:
        findings.append(f"({CHECKOUT}): `make test` is red: {output.strip().splitlines()[-1]}")
    tried = _try_criteria(task, findings)
    for finding in findings:
        task.say(f"finding {finding}")
    verdict = "REQUEST_CHANGES" if findings else "APPROVED"
    listed = "\n".join(f"- F{number} {text}" for number, text in enumerate(findings, 1)) or "None."
    task.write(
        task.document("12-review.md"),
        f"---\nverdict: {verdict}\n---\n# Review: {task.title}\n\n## Findings\n\n{listed}\n\n## What was tried\n\n"
        f"{tried}\n\n## The difference\n\n```\n{changed}\n```\n",
    )
    task.say(f"verdict: {verdict}")


def _try_criteria(task: Task, findings: list[str]) -> str:
    rates = {
        code: int(rate)
        for code, rate in re.findall(r"(?m)^\| `(\w+)` \| (\d+) \|$", task.read(task.document("03-trz.md")))
    }
    rows = ["| criterion | result |", "|---|---|"]
    for number, text in re.findall(r"(?m)^- (AC\d+): (.+)$", task.read(task.document("04-acceptance-criteria.md"))):
        probes = [probe for probe in PROBES if re.search(probe.words, text, re.IGNORECASE)]
        failures = [(probe, wrong) for probe in probes if (wrong := _try(task, probe, rates))]
        findings.extend(f'({probe.file}): {number} "{text}" does not hold: {wrong}' for probe, wrong in failures)
        rows.append(f"| {number} | {'fails' if failures else 'holds' if probes else 'not decidable by a program'} |")
    return "\n".join(rows)


def _try(task: Task, probe: Probe, rates: dict[str, int]) -> str:
    """Run a probe in an interpreter of its own; return what went wrong, or nothing."""
    code = PREPARE + probe.code.format(rates=rates, first=next(iter(rates)))
    ended, printed = task.run("python3", "-c", code, PYTHONPATH="src", PYTHONDONTWRITEBYTECODE="1")
    return "" if ended == 0 else (printed.strip().splitlines() or ["no reason given"])[-1]
