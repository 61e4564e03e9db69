"""The architect: fits the requirements into the shop as its architecture document and its sources say it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hack.demo.agents.agent import Task


def work(task: Task) -> None:
    """Write 11-architecture.md, or 10-conflict.md where a requirement contradicts a rule."""
    architecture = task.read("docs/architecture.md")
    requirements = task.read(task.document("03-trz.md"))
    criteria = task.read(task.document("04-acceptance-criteria.md"))
    rules = re.findall(r"(?m)^(\d)\. (.+)$", architecture)
    if re.search(r"\d[.,]\d+ ?%", requirements + criteria):
        conflict = "a requirement names a fraction of a percent, `percent()` in src/shop/money.py takes whole ones."
        task.write(task.document("10-conflict.md"), f"# Conflict\n\nRule 1 of docs/architecture.md, and {conflict}\n")
        return
    modules = task.modules("src")
    task.say(f"{len(rules)} rules, modules: {', '.join(modules)}")
    codes = ", ".join(re.findall(r"(?m)^\| (`\w+`) \|", requirements))
    known = "\n".join(f"- `{module}`: {'changes' if module.endswith('checkout.py') else 'stays'}" for module in modules)
    reasons = "\n".join(f"{number}. {rule}" for number, rule in rules)
    task.write(
        task.document("11-architecture.md"),
        f"# Architecture: {task.title}\n\n- `src/shop/discounts.py`: new, owns the codes {codes} (rule 2)\n{known}\n\n"
        "`Checkout.apply_code(code)` takes a code or refuses it with `CheckoutError` (rule 3). `Total` gains\n"
        "`discount` in cents, computed by `money.percent` (rule 1). Shipping follows the subtotal before it.\n\n"
        f"## The rules this follows\n\n{reasons}\n",
    )
