"""The agent container's first process, under every shell that an image is likely to have as /bin/sh."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.runner.lab import limit_counts_from
from workitems import protocol
from workitems.agents import entry

pytestmark = pytest.mark.slow


SHELLS = {"dash": ["dash"], "bash-posix": ["bash", "--posix"], "bash": ["bash"], "busybox": ["busybox", "sh"]}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    command = SHELLS[request.param]
    if shutil.which(command[0]) is None:
        pytest.fail(f"install {command[0]}: the entry must be tried under it (Debian: apt-get install {command[0]})")
    return command


class Pod:
    """An exchange with the runner's side of it, and an entry under one shell."""

    def __init__(self, folder: Path, shell: list[str]) -> None:
        self.folder, self.shell = folder, shell
        self.processes: list[subprocess.Popen[str]] = []
        self.alive = -1

    def start(self, *command: str, limit: int = 30, **environment: str) -> subprocess.Popen[str]:
        return self._run(entry.argv(command, limit, str(self.folder)), environment)

    def _run(self, argv: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*self.shell, *argv[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env={"PATH": os.environ["PATH"], **environment},
        )
        self.processes.append(process)
        return process

    def gate(self, *command: str, limit: int = 30, **environment: str) -> subprocess.Popen[str]:
        return self._run(entry.gate_argv(command, limit), environment)

    def go(self, prompt: str = "the prompt") -> None:
        (self.folder / protocol.PROMPT_FILE).write_text(prompt)
        os.mkfifo(self.folder / protocol.ALIVE_FIFO)
        self.alive = os.open(self.folder / protocol.ALIVE_FIFO, os.O_RDONLY | os.O_NONBLOCK)
        (self.folder / protocol.GO_FILE).touch()

    def hello(self) -> bytes:
        assert select.select([self.alive], [], [], 20)[0]
        return os.read(self.alive, 10)

    def catches_sigterm(self, process: subprocess.Popen[str]) -> None:
        """Wait until a shell has set its trap: until then the signal would simply end it."""
        status = Path(f"/proc/{process.pid}/status")
        for _ in range(400):
            caught = status.read_text().partition("SigCgt:")[2].split()[0]
            if int(caught, 16) >> (signal.SIGTERM - 1) & 1:
                return
            time.sleep(0.05)
        pytest.fail("it sets no trap")

    def appears(self, name: str) -> None:
        for _ in range(400):
            if (self.folder / name).exists():
                return
            time.sleep(0.05)
        pytest.fail(f"{name} did not appear")


@pytest.fixture
def pod(tmp_path: Path, shell: list[str]) -> Iterator[Pod]:
    made = Pod(tmp_path, shell)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    if made.alive >= 0:
        os.close(made.alive)


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    output = process.communicate(timeout=30)[0]
    return process.returncode, output


@pytest.mark.parametrize("code", [0, 1, 3, 124, 126, 137, 143])
def test_the_agents_exit_code_and_output_are_the_containers(pod: Pod, code: int) -> None:
    process = pod.start("sh", "-c", f'cat; echo " to stderr" >&2; exit {code}')
    pod.go("line 1 $HOME `x`")
    assert outcome(process) == (code, "line 1 $HOME `x` to stderr\n")


def test_arguments_reach_the_agent_unchanged(pod: Pod) -> None:
    arguments = ["a b", "", "$HOME", "`x`", "*", "-n", "'\"\\", "new\nline"]
    process = pod.start(sys.executable, "-c", "import sys; print(sys.argv[1:])", *arguments)
    pod.go()
    assert outcome(process) == (0, f"{arguments}\n")


def test_nothing_starts_before_go(pod: Pod) -> None:
    process = pod.start("touch", str(pod.folder / "started"))
    time.sleep(0.6)
    assert not (pod.folder / "started").exists()
    pod.go()
    assert outcome(process)[0] == 0
    assert (pod.folder / "started").exists()


def test_stop_prints_the_reason_and_is_no_failure(pod: Pod) -> None:
    (pod.folder / protocol.STOP_FILE).write_text("HeadMoved: somebody pushed\n")
    process = pod.start("touch", str(pod.folder / "started"))
    code, output = outcome(process)
    assert (code, output) == (0, "workitem: not started:\nHeadMoved: somebody pushed\n")
    assert not (pod.folder / "started").exists()


def test_the_limit_is_124(pod: Pod) -> None:
    process = pod.start("sleep", "60", limit=1)
    pod.go()
    code, output = outcome(process)
    assert (code, output.splitlines()[-1]) == (124, "workitem: ended at its limit of 1 seconds")


@pytest.mark.slow
def test_the_limit_is_124_also_where_the_agent_had_to_be_killed(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_counts_from(monkeypatch, f"{pod.folder}/up")
    process = pod.start("sh", "-c", f"trap '' TERM; touch {pod.folder}/up; while :; do sleep 1; done", limit=1)
    pod.go()
    code, output = outcome(process)
    assert (code, output.splitlines()[-1]) == (124, "workitem: ended at its limit of 1 seconds")


def test_an_agent_may_clean_up_at_its_limit(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_counts_from(monkeypatch, f"{pod.folder}/up")
    script = f"trap 'echo saved; exit 0' TERM; touch {pod.folder}/up; while :; do sleep 0.1; done"
    process = pod.start("sh", "-c", script, limit=1)
    pod.go()
    code, output = outcome(process)
    assert (code, output.splitlines()) == (124, ["saved", "workitem: ended at its limit of 1 seconds"])


def test_a_kill_from_outside_is_not_the_limit(pod: Pod) -> None:
    process = pod.start("sh", "-c", "kill -KILL $$")
    pod.go()
    assert outcome(process)[0] == 137


def test_sigterm_reaches_the_agent_whose_own_code_counts(pod: Pod) -> None:
    script = f"trap 'echo bye; exit 7' TERM; touch {pod.folder}/up; while :; do sleep 0.1; done"
    process = pod.start("sh", "-c", script)
    pod.go()
    pod.appears("up")
    process.send_signal(signal.SIGTERM)
    assert outcome(process) == (7, "bye\n")


@pytest.mark.parametrize("kind", ["agent", "gate"])
def test_zero_said_to_the_end_of_the_pod_is_no_success(pod: Pod, kind: str) -> None:
    script = f"trap 'echo saved; exit 0' TERM; touch {pod.folder}/up; while :; do sleep 0.1; done"
    process = pod.start("sh", "-c", script) if kind == "agent" else pod.gate("sh", "-c", script)
    if kind == "agent":
        pod.go()
    pod.appears("up")
    process.send_signal(signal.SIGTERM)
    assert outcome(process) == (143, "saved\n")


def test_sigterm_twice_still_waits_for_the_agent(pod: Pod) -> None:
    script = (
        f"trap 'touch {pod.folder}/got' TERM; touch {pod.folder}/up;"
        f"until [ -e {pod.folder}/end ]; do sleep 0.1; done; exit 9"
    )
    process = pod.start("sh", "-c", script)
    pod.go()
    pod.appears("up")
    process.send_signal(signal.SIGTERM)
    pod.appears("got")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    (pod.folder / "end").touch()
    assert outcome(process)[0] == 9


def test_sigterm_before_go_ends_the_container(pod: Pod) -> None:
    process = pod.start("sh", "-c", "echo started")
    pod.catches_sigterm(process)
    process.send_signal(signal.SIGTERM)
    assert outcome(process) == (143, "")


def test_the_pipe_is_held_until_the_agent_ends_and_not_by_what_it_leaves_behind(pod: Pod) -> None:
    script = f"(sleep 20 >/dev/null 2>&1 &) ; touch {pod.folder}/up; until [ -e {pod.folder}/end ]; do sleep 0.1; done"
    process = pod.start("sh", "-c", script)
    pod.go()
    assert pod.hello() == b"h"
    pod.appears("up")
    with pytest.raises(BlockingIOError):
        os.read(pod.alive, 1)
    (pod.folder / "end").touch()
    assert outcome(process)[0] == 0
    assert os.read(pod.alive, 1) == b""


def test_the_pipe_ends_with_the_container_however_it_dies(pod: Pod) -> None:
    process = pod.start("sleep", "20")
    pod.go()
    assert pod.hello() == b"h"
    process.kill()
    process.wait()
    # In a container its first process takes all others along; here a child may need a moment to let go.
    assert pod.hello() == b""


def test_programs_that_the_agent_starts_can_be_interrupted(pod: Pod) -> None:
    process = pod.start(sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT).__name__)")
    pod.go()
    assert outcome(process) == (0, "default_int_handler\n")


def test_a_command_that_does_not_exist_is_127(pod: Pod) -> None:
    process = pod.start("no-such-agent")
    pod.go()
    code, output = outcome(process)
    assert code == 127
    assert "no-such-agent" in output


def test_a_missing_program_is_named_and_the_runner_does_not_wait_for_it(pod: Pod) -> None:
    empty = pod.folder / "bin"
    empty.mkdir()
    (empty / "sleep").symlink_to(str(shutil.which("sleep")))
    shell = str(shutil.which(pod.shell[0]))
    pod.shell = [shell, *pod.shell[1:]]
    process = pod.start("true", PATH=str(empty))
    time.sleep(0.3)
    pod.go()
    assert pod.hello() == b"h"
    assert outcome(process) == (127, "workitem: the image lacks: cat\n")


@pytest.mark.parametrize("code", [0, 1, 124, 127, 137])
def test_a_gates_exit_code_and_output_are_the_containers_and_it_has_no_input(pod: Pod, code: int) -> None:
    process = pod.gate("sh", "-c", f'cat; echo "$1"; echo "to stderr" >&2; exit {code}', "sh", "$HOME `x`")
    assert outcome(process) == (code, "$HOME `x`\nto stderr\n")


def test_a_gates_limit_is_124(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_counts_from(monkeypatch, f"{pod.folder}/up")
    process = pod.gate("sh", "-c", f"echo begun; touch {pod.folder}/up; exec sleep 60", limit=1)
    code, output = outcome(process)
    lines = output.splitlines()
    assert (code, lines[0], lines[-1]) == (124, "begun", "workitem: ended at its limit of 1 seconds")


def test_sigterm_reaches_a_gates_command(pod: Pod) -> None:
    process = pod.gate("sh", "-c", f"trap 'exit 7' TERM; touch {pod.folder}/up; while :; do sleep 0.1; done")
    pod.appears("up")
    process.send_signal(signal.SIGTERM)
    assert outcome(process) == (7, "")


def test_a_gate_that_cannot_be_limited_does_not_run(pod: Pod) -> None:
    empty = pod.folder / "bin"
    empty.mkdir()
    pod.shell = [str(shutil.which(pod.shell[0])), *pod.shell[1:]]
    process = pod.gate("/bin/sh", "-c", f"echo ran >{pod.folder}/ran", PATH=str(empty))
    if pod.shell[0].endswith("busybox"):
        pytest.skip("busybox finds its own sleep without a PATH")
    assert outcome(process) == (127, f"{entry.LACKS_SLEEP}\n")
    assert not (pod.folder / "ran").exists()


def test_many_short_agents_never_run_into_their_limit(pod: Pod) -> None:
    """A watch that loses the signal which should end it would turn a success into 124, now and then."""
    pod.go()
    for _ in range(40):
        assert outcome(pod.start("true", limit=20))[0] == 0


def test_the_kubelet_finds_nothing_to_expand_in_the_script() -> None:
    for script in (entry.ENTRY, entry.GATE):
        assert "$(" not in script
        assert "$$" not in script
    assert entry.argv(["claude"], 60)[:4] == ["/bin/sh", "-c", entry.ENTRY, "agent"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only bind mount and another user need root")
def test_a_read_only_mount_and_another_user_are_enough_for_the_entry(pod: Pod) -> None:
    """The agent's view of the exchange: mounted read-only, files of another user, no rights of its own."""
    pod.go()
    (pod.folder / protocol.ALIVE_FIFO).chmod(0o666)
    # pytest's folders are its user's own; how many there are depends on whether tests run in parallel.
    private = [folder for folder in (pod.folder, *pod.folder.parents) if not folder.stat().st_mode & 0o001]
    for folder in private:
        folder.chmod(0o755)
    argv = entry.argv(["sh", "-c", f"id -u; touch {pod.folder}/x || echo refused"], 10, str(pod.folder))
    mount = f'mount --bind {pod.folder} {pod.folder} && mount -o remount,ro,bind {pod.folder} && exec "$@"'
    process = subprocess.Popen(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            mount,
            "sh",
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            *pod.shell,
            *argv[1:],
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    pod.processes.append(process)
    assert pod.hello() == b"h"
    code, output = outcome(process)
    assert code == 0
    assert output.splitlines()[0] == "65534"
    assert output.splitlines()[-1] == "refused"
