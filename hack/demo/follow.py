"""Follows one item to its end: shows what happens, approves what the demo's person would, and gives up in time.

Everything is driven by the API server's own events. The only clock is the one that says that nothing has happened
for too long, because a demo that waits for ever teaches nobody what is wrong.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import shutil
import sys
from typing import TYPE_CHECKING

from hack.demo import install, view
from hack.demo.cluster import Kubectl, Object, Watch
from hack.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hack.gitea.client import Repository

KIND = "workitems.workitems.dev"
STALL_SECONDS = 300
FIRST_LOOK_SECONDS = 60  # an operator that runs writes a first status within a second or two
GATE = "analysis-approved"
CI_CONTEXT = "build"
GIVEN_UP = {"Blocked", "Aborted", "NeedsInput", "Suspended"}


class Screen:
    """Draws the item again in place on a terminal; prints what is new anywhere else."""

    def __init__(self, stages: Sequence[str]) -> None:
        self._stages = stages
        self._live = sys.stdout.isatty()
        self._drawn = 0
        self._last: Object = {}

    def show(self, item: Object) -> None:
        """Show this version of the item."""
        if self._live:
            self._draw(view.screen(item, self._stages))
        else:
            for line in view.changes(self._last, item, self._stages):
                print(line, flush=True)
        self._last = item

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._erase()
        print(line, flush=True)
        if self._live and self._last:
            self._draw(view.screen(self._last, self._stages))

    def _erase(self) -> None:
        if self._drawn:
            print(f"\033[{self._drawn}F\033[J", end="")
            self._drawn = 0

    def _draw(self, lines: Sequence[str]) -> None:
        # A line that wraps would make the next redrawing start too low, and so would a screen that is full.
        width, height = shutil.get_terminal_size()
        self._erase()
        shown = [line[: width - 1] for line in lines[: height - 1]]
        print("\n".join(shown), flush=True)
        self._drawn = len(shown)


@dataclasses.dataclass
class Follower:
    """Follows the item `name`; `user` is who approves, `repository` where the CI server's answers are sent."""

    kubectl: Kubectl
    name: str
    user: str
    screen: Screen
    repository: Repository
    stall_seconds: float = STALL_SECONDS
    approved: set[str] = dataclasses.field(default_factory=set)
    answered: set[str] = dataclasses.field(default_factory=set)

    def to_the_end(self) -> Object:
        """Return the finished item. Raises DemoError when it stops before its end, or nothing changes for too long."""
        events: queue.Queue[Object | None] = queue.Queue()
        watch = Watch(self.kubectl, KIND, self.name, events)
        ended_at_once = 0
        patience: float = FIRST_LOOK_SECONDS
        try:
            while True:
                try:
                    item = events.get(timeout=patience)
                except queue.Empty:
                    raise DemoError(self._stalled(patience)) from None
                if item is None:
                    # The API server ends every watch after a while. One that never gives anything is a failure.
                    ended_at_once += 1
                    reason = watch.stop()
                    if ended_at_once > 3:
                        raise DemoError(
                            f"The watch on {self.name} ends again and again: {reason or 'kubectl gives no reason'}."
                        )
                    watch = Watch(self.kubectl, KIND, self.name, events)
                    continue
                ended_at_once = 0
                patience = self.stall_seconds if view.status_of(item) else FIRST_LOOK_SECONDS
                self.screen.show(item)
                if self._is_over(item):
                    return item
                self._approve(item)
                self._answer_as_ci(item)
        finally:
            watch.stop()

    def _is_over(self, item: Object) -> bool:
        phase = view.status_of(item).get("phase")
        if phase in GIVEN_UP:
            reason, message = view.ready(item)
            logs = self.kubectl.line("logs", "-l", f"workitems.dev/item={self.name}", "-c", "agent", "--tail=40")
            raise DemoError(
                f"{self.name} is {phase} ({reason}): {message}\n"
                f"  all of it:       {self.kubectl.line('describe', KIND, self.name)}\n"
                f"  the agents' log: {logs}"
            )
        return phase == "Done"

    def _approve(self, item: Object) -> None:
        """Say yes once for each head that waits for it, as a person who has read the documents would."""
        status = view.status_of(item)
        head = status.get("head")
        waits = any(gate["name"] == GATE and gate["result"] == "Pending" for gate in status.get("gates", []))
        if status.get("phase") != "InReview" or not waits or not head or head in self.approved:
            return
        self.approved.add(head)
        body = decision(self.name, len(self.approved), self.user, head)
        self.kubectl.create(body)
        made = f"Decision {body['metadata']['name']}"
        self.screen.say(f"→ approving {GATE} as {self.user} for the documents of commit {head[:10]} ({made})")

    def _answer_as_ci(self, item: Object) -> None:
        """Report success once for each head that waits for CI, as a CI server would: the demo brings none."""
        status = view.status_of(item)
        head = status.get("head")
        if view.ready(item)[0] != "WaitingForChecks" or not head or head in self.answered:
            return
        self.answered.add(head)
        self.repository.report(head, CI_CONTEXT, "success")
        self.screen.say(f"→ reporting {CI_CONTEXT} success on commit {head[:10]}, as a CI server would")

    def _stalled(self, seconds: float) -> str:
        there = Kubectl(self.kubectl.command, install.OPERATOR)
        reasons = " ".join(filter(None, (install.why(there), install.why(self.kubectl))))
        return (
            f"Nothing has changed on {self.name} for {seconds:.0f} seconds. {reasons or 'No pod says why.'}\n"
            f"  the operator's log: {there.line('logs', f'deployment/{install.OPERATOR}', '--tail=50')}\n"
            f"  the item's pods:    {self.kubectl.line('describe', 'pods', '-l', f'workitems.dev/item={self.name}')}"
        )


def decision(item: str, number: int, user: str, head: str) -> Object:
    """Return the approval of an item's analysis at a commit."""
    return {
        "apiVersion": "workitems.dev/v1alpha1",
        "kind": "Decision",
        "metadata": {"name": f"{item}-approve-{number}"},
        "spec": {"workItem": item, "by": user, "approve": {"gate": GATE, "commit": head}, "comment": "Good to go."},
    }


def user_of(kubectl: Kubectl) -> str:
    """Return the name under which the API server knows this kubeconfig: a Decision must be by who creates it."""
    review = json.loads(kubectl.run("auth", "whoami", "-o", "json"))
    name: str = review["status"]["userInfo"]["username"]
    return name
