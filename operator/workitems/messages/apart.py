"""A team's own template is a stranger's program: it is rendered in a child process that has nothing and little time.

Jinja2's sandbox keeps it from objects and files, but not from `'x' * 2000000000` or from a loop that runs for ever, and
both would stop the operator for everybody. `child.py` is the other side.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import workitems
from workitems.messages.template import Subject, Unusable

PACKAGES = Path(workitems.__file__).parent.parent
"""Where the child finds our code, wherever it is installed."""
PROCESSOR_SECONDS = 2
"""Twenty times what a start takes; an ordinary template adds milliseconds."""
MEMORY_BYTES = 128 * 1024 * 1024
"""Of addresses. An ordinary template needs a quarter; the operator's pod has room for as many as run at once."""
PATIENCE_SECONDS = 30.0
"""On a machine that is busy with other things."""


def rendered(template: str, values: Mapping[str, Any], subject: Subject, units: Mapping[str, str], most: int) -> str:
    """As `template.rendered`, in a child process; blocks until that has ended. Raises Unusable."""
    task = {
        "template": template,
        "values": dict(values),
        "subject": asdict(subject),
        "units": dict(units),
        "most": most,
        "processor_seconds": PROCESSOR_SECONDS,
        "memory_bytes": MEMORY_BYTES,
    }
    command = [sys.executable, "-P", "-s", "-m", "workitems.messages.child"]
    try:
        ended = subprocess.run(  # noqa: S603 - our own program; the template comes by its input
            command,
            input=json.dumps(task).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Nothing of ours: what a template cannot reach it cannot tell.
            env={"PYTHONPATH": str(PACKAGES), "PYTHONDONTWRITEBYTECODE": "1"},
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unusable(f"it has no end within {PATIENCE_SECONDS:.0f} s") from None
    if ended.returncode:
        limit = f"{PROCESSOR_SECONDS} s of processor time or {MEMORY_BYTES >> 20} MiB of memory"
        raise Unusable(f"it needs more than {limit}")
    answer = json.loads(ended.stdout)
    if answer["problem"] is not None:
        raise Unusable(answer["problem"])
    text: str = answer["text"]
    return text
