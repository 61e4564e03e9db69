"""The analyst: turns the request in the prompt into four documents, or into questions where it leaves a price open."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hack.demo.agents.agent import Task

CODE = re.compile(r"`([A-Z][A-Z0-9]{2,})` takes (\d{1,2}) ?%")
QUESTIONS = """# Questions

1. Which discount codes shall exist, and how many percent does each take off? No price is guessed.
   Please answer in the form: `WELCOME10` takes 10 %.
"""


def work(task: Task) -> None:
    """Write 02, 03, 04 and 05, or 01-questions.md."""
    task.read("README.md")
    task.read("docs/architecture.md")
    request = task.section(f"^{re.escape(task.title)}$")
    codes = dict(CODE.findall(task.prompt))  # an answer to the questions may name them as well
    if not codes:
        task.write(task.document("01-questions.md"), QUESTIONS)
        task.say("no discount code with a percentage in the request: asked instead of guessing")
        return
    criteria = [line[2:].strip() for line in request.splitlines() if line.startswith("- ")]
    criteria = criteria or [f"`{code}` takes {rate} % off the subtotal." for code, rate in codes.items()]
    task.say(f"{len(codes)} codes ({', '.join(codes)}), {len(criteria)} acceptance criteria")
    task.write(task.document("02-brd.md"), _brd(task, request))
    rows = "\n".join(f"| `{code}` | {rate} |" for code, rate in codes.items())
    task.write(
        task.document("03-trz.md"),
        f"# Requirements: {task.title}\n\n| code | percent of the subtotal |\n|---|---|\n{rows}\n\n"
        "Amounts are whole cents, rounded half up. A refusal is a `CheckoutError` for the customer.\n",
    )
    numbered = "\n".join(f"- AC{number}: {text}" for number, text in enumerate(criteria, 1))
    task.write(task.document("04-acceptance-criteria.md"), f"# Acceptance criteria\n\n{numbered}\n")
    plan = "\n".join(
        f"| AC{number} | `make test`, and the reviewer tries it |" for number in range(1, len(criteria) + 1)
    )
    task.write(task.document("05-test-plan.md"), f"# Test plan\n\n| criterion | checked by |\n|---|---|\n{plan}\n")


def _brd(task: Task, request: str) -> str:
    text = f"# {task.title}\n\nFor the customers of the shop. What was asked for:\n\n{_quoted(request)}\n"
    remarks = task.section("^answer$|^what happened before$")
    return text + (f"\nWhat people said to it since:\n\n{_quoted(remarks)}\n" if remarks else "")


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.strip().splitlines())
