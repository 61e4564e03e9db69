"""The volume's repository: shared, interrupted, damaged, full; and back in service without a person."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.runner.lab import BRANCH, QUICK, UID, Lab, git
from workitems.protocol import RunKind, RunTask
from workitems.runner import remote
from workitems.runner.cache import Cache
from workitems.runner.places import Places
from workitems.runner.problems import RunProblemError

pytestmark = pytest.mark.slow


def damage_head(path: Path) -> None:
    (path / "HEAD").write_text("")


def damage_config(path: Path) -> None:
    (path / "config").write_text("[core\n\x00")


def truncate_objects(path: Path) -> None:
    for file in [*path.glob("objects/pack/*.pack"), *path.glob("objects/??/*")]:
        file.chmod(0o644)
        file.write_bytes(b"")


def empty_refs(path: Path) -> None:
    for file in path.glob("refs/remotes/origin/**/*"):
        if file.is_file():
            file.write_bytes(b"")


def leave_locks(path: Path) -> None:
    for name in ("packed-refs.lock", "config.lock", "shallow.lock", "refs/remotes/origin/main.lock", "HEAD.lock"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("")
    (path / "worktrees/et-12/index.lock").write_text("")
    (path / "worktrees/et-12/HEAD.lock").write_text("")
    (path / "objects/pack/tmp_pack_x").write_text("x")
    (path / "objects/pack/pack-x.keep").write_text("x")
    (path / "objects/pack/.tmp-7-pack-x.pack").write_text("x")


def break_index(path: Path) -> None:
    (path / "worktrees/et-12/index").write_bytes(b"DIRC\x00")


def remove_worktree(path: Path) -> None:
    shutil.rmtree(path / "worktrees/et-12")


def empty_everything(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def fill_with_rubbish(path: Path) -> None:
    empty_everything(path)
    (path / "refs").write_text("rubbish")
    (path / "objects").symlink_to("/nonexistent")


@pytest.mark.parametrize(
    "damage",
    [
        damage_head,
        damage_config,
        truncate_objects,
        empty_refs,
        leave_locks,
        break_index,
        remove_worktree,
        empty_everything,
        fill_with_rubbish,
    ],
)
def test_a_damaged_cache_heals_itself(lab: Lab, damage: Callable[[Path], None]) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one")
    path = lab.places.git_dir(lab.task())
    git("--git-dir", str(path), "pack-refs", "--all")
    lab.run(lab.task(run=2, expected_head=first.head, base_commit=first.base_commit))
    number = path.stat().st_ino
    damage(path)
    lab.push("main", docs__later_dot_md="later")
    report = lab.run(lab.task(run=3, expected_head=first.head, base_commit=first.base_commit), "cat src/one > src/two")
    assert report.problem is None
    assert lab.show(str(report.head), "src/two") == "1"
    assert path.stat().st_ino == number, "the mount point itself was replaced"
    assert not list(path.rglob("*.lock"))
    assert not list(path.rglob("tmp_pack*"))
    assert not list(path.rglob("*.keep"))
    assert not list(path.rglob(".tmp-*"))


def hollow(lab: Lab, name: str) -> None:
    """Empty an object's file, as a node that was lost leaves what it had not written to the disk yet."""
    made = git("--git-dir", str(lab.remote), "rev-parse", name)
    file = lab.places.git_dir(lab.task()) / "objects" / made[:2] / made[2:]
    file.chmod(0o644)
    file.write_bytes(b"")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (RunKind.AGENT, ".openclaw/agents/developer.md"),
        (RunKind.AGENT, "docs/verdict.md"),
        (RunKind.LOOK, "docs/verdict.md"),
        (RunKind.GATE, "src/app.py"),
    ],
)
def test_an_object_that_only_this_run_reads_is_fetched_anew_too(lab: Lab, kind: RunKind, path: str) -> None:
    """The tree itself is as the last run left it, so bringing it there reads none of its files' objects."""
    task = lab.task(system_prompt_file=".openclaw/agents/developer.md", verdicts=("docs/verdict.md",))
    first = lab.run(task, "echo APPROVED > docs/verdict.md")
    hollow(lab, f"{BRANCH}:{path}")
    if kind is RunKind.GATE:
        (lab.tree() / path).unlink()
    report = lab.run(
        dataclasses.replace(task, kind=kind, run=2, expected_head=first.head, base_commit=first.base_commit)
    )
    assert (report.problem, report.head, report.verdicts) == (
        None,
        first.head,
        () if kind is RunKind.GATE else first.verdicts,
    )


@pytest.mark.parametrize("name", ["commondir", "index"])
def test_a_file_that_another_item_left_empty_stops_nobody(
    lab: Lab, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one")
    lab.run(lab.task(item="other", uid="other", branch="other"))
    (lab.places.git_dir(lab.task()) / "worktrees/other" / name).write_text("")
    lab.push("main")
    report = lab.run(lab.task(run=2, expected_head=first.head, base_commit=first.base_commit), "echo 2 > src/two")
    assert (report.problem, report.pushed) == (None, True)
    assert "anew" not in caplog.text
    cache_of(str(lab.root), lab.url).bare.run("gc", "--quiet")


def test_a_fetch_killed_in_the_middle_leaves_nothing_that_the_next_run_trips_over(lab: Lab) -> None:
    blob = os.urandom(3_000_000).hex()
    head = lab.push("main", docs__big_dot_md=blob)
    task = lab.task()
    lab.fresh(task)
    path = lab.places.git_dir(task)
    for delay in (0.02, 0.05, 0.1, 0.2):
        script = "import sys; from tests.unit.runner.test_cache import cache_of; cache_of(*sys.argv[1:]).refresh()"
        process = subprocess.Popen([sys.executable, "-c", script, str(lab.root), lab.url], stderr=subprocess.DEVNULL)
        wait_for((path / "objects").exists)
        time.sleep(delay)
        kill_all(process)
    report = lab.run(task, "echo ok > src/ok")
    assert (report.problem, report.base_commit) == (None, head)
    assert not list(path.rglob("tmp_*"))


def cache_of(root: str, url: str) -> Cache:
    task = RunTask(
        kind=RunKind.AGENT,
        item="et-12",
        uid=UID,
        run=1,
        stage="s",
        attempt=1,
        agent="a",
        repository="shop",
        url=url,
        branch=BRANCH,
        base_branch="main",
    )
    places = Places(
        volume=Path(root) / "workspace", credentials=Path(root) / "none", ca_file=Path(root) / "none", allow_file=True
    )
    return Cache(remote.connect(places, url, QUICK), places, task, QUICK)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited for nothing")


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and the git commands below it, which have sessions of their own: as a container's end does."""
    below = [process.pid]
    for pid in below:  # it grows
        # Stopped from the top down: whoever is stopped starts nobody who would not be found.
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(pid, signal.SIGSTOP)
            wait_for(lambda pid=pid: state(pid) in "TZX")  # type: ignore[misc]
            below += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_two_items_share_one_volume_and_never_see_each_others_files(lab: Lab) -> None:
    labs = []
    for number in (1, 2, 3):
        pod = dataclasses.replace(lab, root=lab.root)
        pod.counter = number * 100
        labs.append((pod, lab.task(item=f"et-{number}", branch=f"feature/et-{number}", uid=f"uid-{number}")))

    def chain(pod: Lab, task: RunTask) -> list[str | None]:
        heads: list[str | None] = []
        for run in range(1, 4):
            script = f"ls src > docs/seen-{run}; echo {task.item} > src/{task.item}-{run}; echo junk > junk-{task.item}"
            report = pod.run(dataclasses.replace(task, run=run, expected_head=heads[-1] if heads else None), script)
            assert report.problem is None
            heads.append(report.head)
        return heads

    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda pair: chain(*pair), labs))
    for (_, task), heads in zip(labs, results, strict=True):
        assert lab.head(task.branch) == heads[-1]
        own = {f"src/{task.item}-{run}" for run in (1, 2, 3)}
        assert {path for path in lab.files(str(heads[-1])) if path.startswith("src/et-")} == own
        seen = lab.show(str(heads[-1]), "docs/seen-3").split()
        assert set(seen) == {"app.py", f"{task.item}-1", f"{task.item}-2"}


def test_emptying_a_damaged_cache_keeps_another_items_running_work(lab: Lab) -> None:
    other = lab.task(item="et-9", branch="feature/et-9", uid="uid-9")
    first = lab.run(other, "echo 1 > src/one")

    def heal() -> None:
        truncate_objects(lab.places.git_dir(other))
        neighbour = dataclasses.replace(lab, counter=500)
        assert neighbour.run(lab.task(), "echo n > src/neighbour").problem is None

    report = lab.run(dataclasses.replace(other, run=2, expected_head=first.head), "echo 2 > src/two", during=heal)
    assert report.problem is None
    assert {"src/one", "src/two"} <= lab.files(str(report.head))
    assert "src/neighbour" not in lab.files(str(report.head))


def test_emptying_a_damaged_cache_keeps_another_items_merge(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo ours > src/app.py")
    base = lab.push("main", src__app_dot_py="theirs", src__new_dot_py="new")
    other = cache_of(str(lab.root), lab.url)
    other.admin = other.admin.with_name("other")
    task = lab.task(run=2, expected_head=first.head, base_commit=first.base_commit, merge_base=True)
    report = lab.run(task, "echo both > src/app.py", during=other.renew)
    assert (report.problem, report.pushed) == (None, True)
    assert git("--git-dir", str(lab.remote), "log", "-1", "--format=%P", BRANCH).split() == [first.head, base]
    assert (lab.show(BRANCH, "src/app.py"), lab.show(BRANCH, "src/new.py")) == ("both", "new")


def test_a_lock_that_nobody_gives_back_ends_in_a_problem_worth_a_retry(lab: Lab) -> None:
    task = lab.task()
    lab.fresh(task)
    lab.patience = dataclasses.replace(QUICK, lock=0.3)
    with (lab.places.locks(task) / "cache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        report = lab.run(task)
    assert report.problem is not None
    assert (report.problem.reason, report.problem.retry) == ("VolumeBusy", True)


def test_the_healing_of_one_waits_for_the_publishing_of_another(lab: Lab) -> None:
    cache = cache_of(str(lab.root), lab.url)
    cache.refresh()
    truncate_objects(cache.path)
    impatient = cache_of(str(lab.root), lab.url)
    impatient._patience = dataclasses.replace(QUICK, lock=0.3)
    lab.push("main")
    with cache.locked("publishing", shared=True), pytest.raises(RunProblemError, match="another run has held"):
        impatient.refresh()
    assert impatient.refresh().base == lab.head("main")


@pytest.fixture
def small_volume(lab: Lab) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a volume of limited size needs root to mount it")
    lab.places.volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(lab.places.volume)], check=True)
    yield lab.places.volume
    subprocess.run(["umount", "--lazy", str(lab.places.volume)], check=True)


def test_a_volume_too_small_for_the_repository_is_named(lab: Lab, small_volume: Path) -> None:
    lab.push("main", docs__big_dot_md=os.urandom(3_000_000).hex())
    report = lab.run(lab.task())
    assert report.problem is not None
    assert report.problem.reason == "VolumeFull"
    assert not report.problem.retry


def test_a_volume_too_small_for_the_tree_is_named(lab: Lab, small_volume: Path) -> None:
    lab.push("main", docs__big_dot_md="x" * 3_000_000)
    report = lab.run(lab.task())
    assert report.problem is not None
    assert report.problem.reason == "VolumeFull"


def test_an_agent_that_fills_the_volume_is_named_and_the_next_run_has_space_again(lab: Lab, small_volume: Path) -> None:
    report = lab.run(lab.task(), "echo 1 > src/one; head -c 9000000 /dev/urandom > src/big")
    assert report.problem is not None
    assert report.problem.reason == "VolumeFull"
    assert report.agent_started
    second = lab.run(lab.task(run=2, base_commit=report.base_commit), "echo 2 > src/two")
    assert (second.problem, second.pushed) == (None, True)


def test_a_volume_without_rights_is_named(lab: Lab) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a folder away needs root")
    lab.places.volume.mkdir()
    lab.places.volume.chmod(0o555)
    subprocess.run(["mount", "--bind", str(lab.places.volume), str(lab.places.volume)], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(lab.places.volume)], check=True)
    try:
        cache = cache_of(str(lab.root), lab.url)
        with pytest.raises(OSError, match="Read-only"):
            cache.refresh()
    finally:
        subprocess.run(["umount", "--lazy", str(lab.places.volume)], check=True)


def test_maintenance_keeps_what_worktrees_need(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one")
    cache = cache_of(str(lab.root), lab.url)
    cache.bare.run("-c", "gc.auto=1", "gc", "--prune=now", "--quiet")
    report = lab.run(lab.task(run=2, expected_head=first.head, base_commit=first.base_commit), "echo 2 > src/two")
    assert report.problem is None


def _processes(log: str) -> list[str]:
    return [
        line.split("git ", 1)[1].split()[0].rstrip(":")
        for line in log.splitlines()
        if " git " in line and " s)" in line
    ]


def test_a_run_that_finds_all_as_it_left_it_starts_few_processes(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """A run waits for each of them; what was asked for once, and a repository that is complete, need none."""
    caplog.set_level(logging.INFO)
    first = lab.run(lab.task(), "echo 1 > src/one")
    # The second brings the local branch where the first one's commit is.
    for run in (2, 3):
        caplog.clear()
        report = lab.run(lab.task(run=run, expected_head=first.head, base_commit=first.base_commit), ":")
    assert (report.problem, report.committed, report.head, report.tree) == (None, False, first.head, first.tree)
    assert _processes(caplog.text) == ["fetch", "for-each-ref", "reset", "status", "write-tree"]


@pytest.mark.parametrize(("loose", "packs", "tidied"), [(27, 0, True), (26, 50, False), (0, 51, True)])
def test_what_years_of_runs_left_is_packed(
    lab: Lab, caplog: pytest.LogCaptureFixture, loose: int, packs: int, tidied: bool
) -> None:
    lab.run(lab.task())
    cache = cache_of(str(lab.root), lab.url)
    sample = cache.path / "objects" / "17"
    sample.mkdir(exist_ok=True)
    for file in sample.iterdir():
        file.unlink()
    for file in (cache.path / "objects" / "pack").glob("*.pack"):
        file.rename(file.with_suffix(".kept"))
    for number in range(loose):
        (sample / f"{number:038x}").touch()
    for number in range(packs):
        (cache.path / "objects" / "pack" / f"pack-{number:040x}.pack").touch()
    caplog.set_level(logging.INFO)
    cache.tidy()
    assert ("git -c gc.auto=6700 gc" in caplog.text) is tidied
