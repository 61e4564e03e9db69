"""The operator with a sampler: where its CPU time goes, not its wall time, which a loaded machine makes meaningless.

The kernel sends SIGPROF for every two milliseconds of CPU that the process has used; each time the stack is counted.
The file that is written at the end has one line for every stack, the outermost function first, as flame graph tools
read it, after a table of the functions in which most of the time was spent, with what they call and without.

    python -m bench.load.profiled FILE
"""

from __future__ import annotations

import collections
import signal
import sys
from pathlib import Path
from types import FrameType

from workitems import __main__ as entry

SECONDS = 0.002
SHOWN = 60


def main() -> int:
    """Run the operator to its end, then write the file named by the first argument."""
    stacks: collections.Counter[tuple[str, ...]] = collections.Counter()

    def sample(_signal: int, frame: FrameType | None) -> None:
        stack = []
        while frame is not None:
            module = frame.f_globals.get("__name__", "?")
            stack.append(f"{module}:{frame.f_code.co_qualname}")
            frame = frame.f_back
        stacks[tuple(reversed(stack))] += 1

    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, SECONDS, SECONDS)
    try:
        return entry.main(["operate"])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        Path(sys.argv[1]).write_text(_text(stacks))


def _text(stacks: collections.Counter[tuple[str, ...]]) -> str:
    own: collections.Counter[str] = collections.Counter()
    whole: collections.Counter[str] = collections.Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
        for name in set(stack):
            whole[name] += count
    total = sum(stacks.values())
    table = [
        f"# {count / total:6.1%} with callees, {own[name] / total:6.1%} without: {name}"
        for name, count in whole.most_common(SHOWN)
    ]
    table += [f"# {count / total:6.1%} without callees: {name}" for name, count in own.most_common(SHOWN)]
    return "\n".join([*table, *(f"{';'.join(stack)} {count}" for stack, count in stacks.most_common())]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
