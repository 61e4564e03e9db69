"""The agent of the end-to-end tests: does what the work item's description tells it to, and nothing else.

It reads its whole prompt from stdin, as every agent does. A fenced block ```script holds JSON: stage -> list of steps,
one for each attempt (the last one serves all later attempts). A step may `write` files ({docs} stands for the item's
documents), `delete` them, `run` a shell command, `print`, `allocate` mebibytes, `sleep` seconds and `exit` with a code.
A stage that the script leaves out, or a step that is null, does what its gates want.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

DEFAULTS: dict[str, dict[str, Any]] = {
    "analysis": {
        "write": {
            f"{{docs}}/{name}": f"{name} of this item\n"
            for name in ("02-brd.md", "03-trz.md", "04-acceptance-criteria.md", "05-test-plan.md")
        }
    },
    "architecture": {"write": {"{docs}/11-architecture.md": "One file.\n"}},
    "development": {"write": {"src/feature.txt": "a feature\n"}},
    "review": {"write": {"{docs}/12-review.md": "---\nverdict: APPROVED\n---\nFine.\n"}},
    "testing": {"write": {"{docs}/13-test-report.md": "Verdict: PASS\n"}},
    "deploy": {"write": {"{docs}/14-deploy.md": "Released.\n"}},
}


def main() -> int:
    """Carry out this attempt's step."""
    prompt = sys.stdin.buffer.read()
    documents = os.environ["WORKITEM_DOCUMENTS"]
    stage, attempt = os.environ["WORKITEM_STAGE"], int(os.environ["WORKITEM_ATTEMPT"])
    block = re.search(rb"```script\n(.*?)\n```", prompt, re.DOTALL)
    script: dict[str, Any] = json.loads(block.group(1)) if block else {}
    steps = script.get(stage, [None])
    step = steps[min(attempt, len(steps)) - 1]
    step = DEFAULTS.get(stage, {}) if step is None else step
    print(f"stage {stage}, attempt {attempt}: {', '.join(step) or 'nothing to do'}", flush=True)
    if script.get("keepPrompts"):
        keep = pathlib.Path(documents, f"prompt-{stage}-{attempt}.md")
        keep.parent.mkdir(parents=True, exist_ok=True)
        keep.write_bytes(prompt)
    for name, text in step.get("write", {}).items():
        path = pathlib.Path(name.replace("{docs}", documents))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in step.get("delete", []):
        pathlib.Path(name.replace("{docs}", documents)).unlink()
    if "print" in step:
        print(step["print"], flush=True)
    if "run" in step:
        subprocess.run(["sh", "-c", step["run"]], check=True)
    held = b"x" * (step.get("allocate", 0) << 20)
    time.sleep(step.get("sleep", 0))
    del held
    return int(step.get("exit", 0))


if __name__ == "__main__":
    sys.exit(main())
