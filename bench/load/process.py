"""The operator as a process under observation: CPU time and memory as the kernel counts them.

On a machine that others load too, wall time says little. CPU time stays comparable, and `waited` says how long the
process was ready to run and got no core.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Seconds since the process started, or between two moments; memory in MB at the later one."""

    wall: float
    cpu: float
    waited: float
    rss: float
    peak: float

    def since(self, earlier: Usage) -> Usage:
        """What was used in between."""
        return Usage(
            self.wall - earlier.wall, self.cpu - earlier.cpu, self.waited - earlier.waited, self.rss, self.peak
        )

    @property
    def core(self) -> float:
        """Share of one core, 0 to 1."""
        return self.cpu / self.wall


def usage_of(pid: int, began: float) -> Usage:
    """Of a process, until now; `began` is the moment on the monotonic clock from which `wall` counts."""
    folder = Path(f"/proc/{pid}")
    # The fields after the command's name, which may contain anything.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    return Usage(
        wall=time.monotonic() - began,
        cpu=(int(fields[11]) + int(fields[12])) / TICKS,
        waited=sum(int(path.read_text().split()[1]) for path in folder.glob("task/*/schedstat")) / 1e9,
        rss=int(status["VmRSS"].split()[0]) / 1024,
        peak=int(status["VmHWM"].split()[0]) / 1024,
    )


@dataclass
class Operator:
    """One operator; a context manager that ends it with SIGTERM."""

    kubeconfig: Path
    log: Path
    port: int
    settings: dict[str, str]
    profile: Path | None = None
    """Where `profiled.py` writes."""
    _process: subprocess.Popen[bytes] | None = None
    _began: float = 0.0

    def __enter__(self) -> Self:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "PYDANTIC_DISABLE_PLUGINS": "__all__",
            "WORKITEMS_NAMESPACE": "workitem-operator",
            "WORKITEMS_KUBECONFIG": str(self.kubeconfig),
            "WORKITEMS_RUNNER_IMAGE": "played",
            "WORKITEMS_AGENT_IMAGE": "played",
            "WORKITEMS_HEALTH_PORT": str(self.port),
            **self.settings,
        }
        self._began = time.monotonic()
        with self.log.open("ab") as log:
            program = ["bench.load.profiled", str(self.profile)] if self.profile else ["workitems", "operate"]
            command = [sys.executable, "-m", *program]
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603 - our own
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(60)
        if code != 0:
            raise RuntimeError(f"the operator ended with {code}; the end of its log:\n{self.tail()}")

    @property
    def usage(self) -> Usage:
        """Until now. Raises RuntimeError if it has died."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the operator died; the end of its log:\n{self.tail()}")
        return usage_of(self._process.pid, self._began)

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
