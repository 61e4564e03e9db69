"""The program inside a run's Job: it brings git's side of a worktree and takes the agent's work away again.

    python -m workitems runner agent     beside an agent: checkout, wait for the agent's end, commit and push
    python -m workitems runner look      report what the branch's head is now, after a push by a person
    python -m workitems runner gate      before a gate's command: a clone of exactly the commit to judge

It needs git and the standard library, nothing else, because a run waits for its start. What the agent left in the
tree is hostile: see `tree.py` and `publish.py` for what that means.
"""

from workitems.runner.program import main

__all__ = ["main"]
