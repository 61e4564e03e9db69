"""The developer: writes the feature until `make test` is green, and on rework answers the review's findings.

It has a weakness that people know: once the tests are green it stops, so a criterion that no test covers is left for
the reviewer to find. What it knows of a review is what its prompt says.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hack.demo.agents.agent import Task

CHECKOUT = "src/shop/checkout.py"
DISCOUNTS = "src/shop/discounts.py"
README = "README.md"
REGRESSION = "tests/test_discount_codes_as_typed.py"

MODULE = '''"""Discount codes: which exist, and how many percent of the subtotal each takes off."""

RATES = {{{rates}}}


def rate_of(code: str) -> int | None:
    """Return the percentage of a code, or None for one that does not exist."""
    return RATES.get(code)
'''
LOOKUP, LOOKUP_AS_TYPED = "RATES.get(code)", "RATES.get(code.strip().upper())"

# What changes in checkout.py: the text that is there, and what it becomes.
EDITS = (
    (
        "from shop.cart import Cart\n",
        "from shop import discounts\nfrom shop.cart import Cart\nfrom shop.money import percent\n",
    ),
    ("    subtotal: int\n", "    subtotal: int\n    discount: int\n"),
    (
        "        self.cart = cart\n",
        """        self.cart = cart
        self.rate = 0

    def apply_code(self, code: str) -> None:
        \"\"\"Take one discount code; a second one, or one that does not exist, is refused.\"\"\"
        if self.rate:
            raise CheckoutError("Only one discount code can be used for an order.")
        rate = discounts.rate_of(code)
        if rate is None:
            raise CheckoutError(f"There is no discount code {code}.")
        self.rate = rate
""",
    ),
    (
        "        return Total(subtotal, shipping, subtotal + shipping)\n",
        """        discount = percent(subtotal, self.rate)
        return Total(subtotal, discount, shipping, subtotal - discount + shipping)
""",
    ),
)

REGRESSION_TEST = '''"""Codes as customers type them: found by a review, kept by this test."""

import unittest

from shop.discounts import RATES, rate_of


class AsTypedTest(unittest.TestCase):
    def test_case_and_spaces_make_no_difference(self):
        for code, rate in RATES.items():
            self.assertEqual(rate_of(f" {code.lower()} "), rate)
'''


def work(task: Task) -> None:
    """Change src/ (and README.md and tests/ on rework) until `make test` passes. Fails if it does not."""
    task.read(task.document("11-architecture.md"))
    task.read(task.document("04-acceptance-criteria.md"))
    rates = re.findall(r"(?m)^\| `(\w+)` \| (\d+) \|$", task.read(task.document("03-trz.md")))
    if task.exists(DISCOUNTS):
        task.say(f"{DISCOUNTS} is already there: no second feature on top of it")
    else:
        _implement(task, rates)
    findings = re.findall(r"(?m)^[> ]*- (F\d+) \(([^)]+)\): (.+)$", task.prompt)
    for number, file, text in findings:
        task.say(f"{number} in {file}: {text}")
        _answer(task, number, file, rates)
    if task.attempt > 1 and not findings:
        task.say("a further attempt, but the prompt names no finding: nothing to do beyond green tests")
    passed, output = task.make_test()
    if not passed:
        task.fail(f"the tests are red: {output.strip().splitlines()[-1]}")
    task.say("all tests are green: done")


def _implement(task: Task, rates: list[tuple[str, str]]) -> None:
    if not rates:
        task.fail("03-trz.md names no discount code, so there is nothing to build")
    text = task.read(CHECKOUT)
    for old, new in EDITS:
        if text.count(old) != 1:
            task.fail(f"{CHECKOUT} no longer has the line {old.strip()!r} once: it must be changed by hand")
        text = text.replace(old, new)
    task.write(DISCOUNTS, MODULE.format(rates=", ".join(f'"{code}": {rate}' for code, rate in rates)))
    task.write(CHECKOUT, text)


def _answer(task: Task, number: str, file: str, rates: list[tuple[str, str]]) -> None:
    """Do what a finding asks for, where it is one that this developer knows how to answer."""
    if file == DISCOUNTS:
        task.write(DISCOUNTS, task.read(DISCOUNTS).replace(LOOKUP, LOOKUP_AS_TYPED))
        task.write(REGRESSION, REGRESSION_TEST)
    elif file == README:
        codes = " and ".join(f"`{code}` ({rate} %)" for code, rate in rates)
        line = f"- One discount code an order: {codes} off the subtotal; upper or lower case does not matter.\n"
        text = task.read(README).rstrip("\n") + "\n"
        task.write(README, text if line in text else text + line)
    else:
        task.say(f"{number} is beyond me: {file} needs a person")
