"""A whole run: checkout, a real agent process under the real entry, publish, report."""

from __future__ import annotations

import hashlib
import subprocess

import pytest

from tests.unit.runner.lab import Lab
from workitems import protocol
from workitems.runner.places import Places

DOCUMENTS = "docs/work-items/et-12"
REVIEW = f"{DOCUMENTS}/12-review.md"


def test_the_work_of_a_first_run_is_committed_by_the_bot_and_pushed_to_a_new_branch(lab: Lab) -> None:
    base = lab.head("main")
    task = lab.task(commit={"name": "claude-bot", "email": "bot@example.com"})
    report = lab.run(task, "echo new > src/new.py; mkdir -p docs/x; echo d > docs/x/d.md; rm src/app.py; exit 3")
    assert report.problem is None
    assert (report.run, report.uid, report.base_commit) == (1, task.uid, base)
    assert (report.committed, report.pushed, report.agent_started) == (True, True, True)
    assert (lab.exit_code, lab.agent_exit) == (0, 3)
    head = lab.head()
    assert head is not None
    assert report.head == head
    assert lab.files(head) >= {"src/new.py", "docs/x/d.md", "README.md"}
    assert "src/app.py" not in lab.files(head)
    log = run_git(lab, "log", "-1", "--format=%an <%ae>|%cn <%ce>|%P|%B", head)
    bot = "claude-bot <bot@example.com>"
    assert log.rstrip() == (f"{bot}|{bot}|{base}|developer(et-12): run 1\n\nWorkItem: {task.uid}\nRun: 1")


def run_git(lab: Lab, *arguments: str) -> str:
    return subprocess.run(
        ["git", "--git-dir", str(lab.remote), *arguments], capture_output=True, check=True, text=True
    ).stdout


def test_a_first_run_without_changes_creates_the_branch_all_the_same(lab: Lab) -> None:
    report = lab.run(lab.task())
    assert (report.committed, report.pushed, report.problem) == (False, True, None)
    assert report.head == lab.head() == lab.head("main")


def test_a_later_run_without_changes_pushes_nothing(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one.py")
    second = lab.run(lab.task(run=2, expected_head=first.head, base_commit=first.base_commit))
    assert (second.committed, second.pushed, second.problem, second.head) == (False, False, None, first.head)


def test_a_second_run_goes_on_from_the_first_with_the_volume_kept(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one.py; mkdir -p build; echo junk > build/junk; echo junk > junk")
    assert first.left_out == ("junk",)
    second = lab.run(
        lab.task(run=2, expected_head=first.head, base_commit=first.base_commit),
        "ls > docs/seen.txt; cat src/one.py >> docs/seen.txt",
    )
    assert second.problem is None
    assert lab.show(str(second.head), "docs/seen.txt").split() == ["README.md", "docs", "src", "tests", "1"]
    assert run_git(lab, "rev-parse", f"{second.head}^").strip() == first.head


def test_the_agent_can_use_git_to_read_history_and_state(lab: Lab) -> None:
    script = (
        "git log --format=%s > docs/log; git branch --show-current >> docs/log; echo x >> README.md;"
        "git status --porcelain >> docs/log; git diff --stat >> docs/log;"
        "git log -1 --format=%s origin/main >> docs/log"
    )
    report = lab.run(lab.task(), script)
    text = lab.show(str(report.head), "docs/log")
    assert text.splitlines()[:2] == ["seed", "feature/et-12-discounts"]
    assert " M README.md" in text
    assert "README.md | 1 +" in text


@pytest.mark.parametrize(
    "prompt",
    [
        "quotes ' \" ` and $HOME $(touch /tmp/pwned) $$ ${X} \\ \\n %s\n",
        "-n leading dash\nand no newline at the end",
        "Скидка для постоянных покупателей. " * 1800,
        "\u2028 line separator, NUL-free, emoji \U0001f600 and a tab\t\n\n\n",
    ],
)
def test_the_prompt_reaches_the_agent_byte_for_byte(lab: Lab, prompt: str) -> None:
    report = lab.run(lab.task(prompt=prompt), "cat > src/prompt")
    assert report.problem is None
    content = lab.root / "content"
    content.write_bytes(b"")
    assert run_git(lab, "cat-file", "blob", f"{report.head}:src/prompt").encode() == prompt.encode()


def test_a_60_kib_cyrillic_prompt_survives_the_json_of_the_task(lab: Lab) -> None:
    prompt = "ё" * (30 * 1024)
    assert len(prompt.encode()) == 60 * 1024
    report = lab.run(lab.task(prompt=prompt), "cat > src/prompt")
    assert run_git(lab, "cat-file", "blob", f"{report.head}:src/prompt") == prompt


def test_the_prompt_carries_included_files_as_they_are_at_the_head_even_if_they_are_then_removed(lab: Lab) -> None:
    first = lab.run(lab.task(), f"mkdir -p {DOCUMENTS}; printf 'Verdict: REQUEST_CHANGES\n' > {REVIEW}")
    task = lab.task(
        run=2,
        expected_head=first.head,
        base_commit=first.base_commit,
        include=(REVIEW, "docs/absent.md", "src"),
        remove=(REVIEW,),
    )
    second = lab.run(task, f"cat > src/prompt; [ -e {REVIEW} ] || echo gone > src/state")
    expected = f"workitem: write the code\n\n\n## {REVIEW}\n\nVerdict: REQUEST_CHANGES"
    assert lab.show(str(second.head), "src/prompt") == expected
    assert lab.show(str(second.head), "src/state") == "gone"
    # Not written anew: committed as deleted, so that the old verdict never counts.
    assert REVIEW not in lab.files(str(second.head))


def test_an_included_file_is_cut_at_256_kib(lab: Lab) -> None:
    head = lab.push("main", docs__long_dot_md="я" * 200_000)
    report = lab.run(lab.task(include=("docs/long.md",)), "tail -c 200 > src/end; wc -c < $LAB/exchange/prompt.md")
    assert report.base_commit == head
    assert lab.show(str(report.head), "src/end").endswith("[cut: the file is longer, read it in the worktree]")
    assert 256 * 1024 < int(lab.agent_log) < 257 * 1024


def test_an_outcome_file_outside_commit_paths_is_deleted_even_if_the_agent_writes_it_again(lab: Lab) -> None:
    lab.push("main", verdict_dot_md="Verdict: APPROVED\n", other_dot_md="Verdict: APPROVED\n")
    report = lab.run(
        lab.task(remove=("verdict.md", "/other.md"), watch=("verdict.md",)), "echo 'Verdict: PASS' > verdict.md"
    )
    assert not {"verdict.md", "other.md"} & lab.files(str(report.head))
    assert report.blobs == (None,)
    assert report.left_out == ("verdict.md",)


def test_the_system_prompt_is_the_one_of_the_base_commit(lab: Lab) -> None:
    path = ".openclaw/agents/developer.md"
    first = lab.run(
        lab.task(commit_paths=("/",), system_prompt_file=path), f"echo hacked > {path}; cat $LAB/exchange/system.md"
    )
    assert lab.agent_log == "You are the developer.\n"
    assert lab.show(str(first.head), path) == "hacked"
    task = lab.task(run=2, expected_head=first.head, base_commit=first.base_commit, system_prompt_file=path)
    lab.run(task, "cat $LAB/exchange/system.md")
    assert lab.agent_log == "You are the developer.\n"


@pytest.mark.parametrize("path", [".openclaw/agents/nobody.md", "empty.md", "docs"])
def test_a_missing_or_empty_system_prompt_stops_the_run_and_names_file_and_commit(lab: Lab, path: str) -> None:
    base = lab.push("main", empty_dot_md=" \n")
    report = lab.run(lab.task(system_prompt_file=path), "echo ran > src/ran")
    assert report.problem is not None
    assert report.problem.reason == "PromptFileNotFound"
    assert path in report.problem.message
    assert base in report.problem.message
    assert not report.agent_started
    assert lab.agent_exit == 0
    assert "PromptFileNotFound" in lab.agent_log
    assert lab.head() is None


def test_a_missing_system_prompt_is_found_once_it_is_committed_to_the_base(lab: Lab) -> None:
    """Nothing has begun at the commit without it, so the next run begins where the base branch is by then."""
    task = lab.task(system_prompt_file="late.md")
    report = lab.run(task, "echo ran > src/ran")
    assert report.problem is not None
    assert report.base_commit is None
    lab.push("main", late_dot_md="You came late.\n")
    report = lab.run(lab.task(run=2, system_prompt_file="late.md"), "cat $LAB/exchange/system.md; echo ran > src/ran")
    assert report.problem is None
    assert lab.agent_log == "You came late.\n"
    # From here on the base commit is pinned: what another agent lacks there is said with what helps.
    pinned = lab.task(run=3, expected_head=report.head, base_commit=report.base_commit, system_prompt_file="later.md")
    lab.push("main", later_dot_md="You came later.\n")
    report = lab.run(pinned, "echo ran > src/ran")
    assert report.problem is not None
    assert "where the item's branch began" in report.problem.message
    assert "create the WorkItem anew, with adoptBranch: true" in report.problem.message


def test_the_task_file_is_there_and_never_committed(lab: Lab) -> None:
    task = lab.task(task_file="work/.task.md", commit_paths=("/",))
    report = lab.run(task, "cp work/.task.md src/copy; echo edited >> work/.task.md")
    assert lab.show(str(report.head), "src/copy") == "workitem: write the code"
    assert "work/.task.md" not in lab.files(str(report.head))
    assert report.left_out == ()


def test_a_tracked_file_of_the_task_files_name_keeps_the_branchs_own_version(lab: Lab) -> None:
    lab.push("main", _dot_task_dot_md="theirs")
    report = lab.run(lab.task(task_file=".task.md", commit_paths=("/",)), "cp .task.md src/copy; rm .task.md")
    assert lab.show(str(report.head), "src/copy") == "workitem: write the code"
    assert lab.show(str(report.head), ".task.md") == "theirs"
    second = lab.run(
        lab.task(run=2, expected_head=report.head, base_commit=report.base_commit), "cp .task.md src/copy2"
    )
    assert lab.show(str(second.head), "src/copy2") == "theirs"


def test_what_is_outside_commit_paths_is_left_out_and_named(lab: Lab) -> None:
    script = (
        "echo x > README.md; echo y > tests/new.py; mkdir docs2; echo z > docs2/a; echo ok > docs/a;"
        "rm tests/test_app.py"
    )
    report = lab.run(lab.task(), script)
    assert report.left_out == ("README.md", "docs2/a", "tests/new.py", "tests/test_app.py")
    assert report.left_out_total == 4
    assert "docs2/a" not in lab.files(str(report.head))
    assert lab.show(str(report.head), "README.md") == "# shop"


@pytest.mark.parametrize(
    ("paths", "committed"),
    [
        (("README.md",), {"README.md"}),
        (("/docs/", "./src"), {"docs/a", "src/a"}),
        (("*",), set()),
        ((":(glob)**", ":/"), set()),
        (("doc",), set()),
        (("/",), {"README.md", "docs/a", "src/a", "*", "top"}),
        ((), set()),
    ],
)
def test_commit_paths_are_taken_literally(lab: Lab, paths: tuple[str, ...], committed: set[str]) -> None:
    base = lab.files(str(lab.head("main")))
    report = lab.run(
        lab.task(commit_paths=paths), "echo x > README.md; echo a > docs/a; echo a > src/a; echo s > '*'; echo t > top"
    )
    if paths == ("*",):
        committed = {"*"}
    head = str(report.head)
    changed = run_git(lab, "diff", "--name-only", str(report.base_commit), head).split()
    assert set(changed) == committed
    assert lab.files(head) == base | committed


def test_only_twenty_left_out_names_travel_with_their_total(lab: Lab) -> None:
    report = lab.run(lab.task(), "for n in $(seq 100 199); do echo x > left-$n; done")
    assert report.left_out_total == 100
    assert len(report.left_out) == 20


def test_the_report_describes_the_pushed_commit(lab: Lab) -> None:
    files = {"12-review.md": "---\nverdict: APPROVED\n---\nFine.\n", "13-test-report.md": "no verdict\n"}
    script = ";".join(f"printf %s '{text}' > {DOCUMENTS}/{name}" for name, text in files.items())
    watch = (f"{DOCUMENTS}/03-trz.md", f"{DOCUMENTS}/absent.md", REVIEW, "docs", f"{DOCUMENTS}/link.md")
    task = lab.task(
        watch=watch,
        verdicts=(REVIEW, f"{DOCUMENTS}/13-test-report.md", "docs/absent.md"),
        excerpts=(f"{DOCUMENTS}/13-test-report.md", REVIEW),
    )
    report = lab.run(task, f"{script}; ln -s 03-trz.md {DOCUMENTS}/link.md; chmod +x {REVIEW}")
    head = str(report.head)
    assert report.tree == run_git(lab, "rev-parse", f"{head}^{{tree}}").strip()
    assert report.blobs == (
        run_git(lab, "rev-parse", f"{head}:{watch[0]}").strip(),
        None,
        run_git(lab, "rev-parse", f"{head}:{REVIEW}").strip(),
        None,
        None,
    )
    assert [(v.file, v.values) for v in report.verdicts] == [
        (REVIEW, ("APPROVED",)),
        (f"{DOCUMENTS}/13-test-report.md", ()),
    ]
    assert [(e.file, e.text) for e in report.excerpts] == [
        (f"{DOCUMENTS}/13-test-report.md", "no verdict\n"),
        (REVIEW, files["12-review.md"]),
    ]
    listing = run_git(lab, "ls-tree", "-rz", "--full-tree", head).split("\0")
    code = "".join(f"{line}\0" for line in listing if line and not line.split("\t")[1].startswith(f"{DOCUMENTS}/"))
    assert report.code == "sha256:" + hashlib.sha256(code.encode()).hexdigest()
    assert report.not_fetched == ()


@pytest.mark.parametrize("language", ["Цена — целое число. ", "价格是整数。", "The price is an integer. "])
def test_500_characters_of_a_document_are_reported_whatever_its_language(lab: Lab, language: str) -> None:
    text = language * 200
    report = lab.run(lab.task(excerpts=(REVIEW,)), f"printf %s '{text}' > {REVIEW}")
    (excerpt,) = report.excerpts
    assert excerpt.text.startswith(text[:500])
    assert text.startswith(excerpt.text)
    assert excerpt.cut


def test_the_codes_digest_does_not_change_with_the_documents(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one.py")
    second = lab.run(
        lab.task(run=2, expected_head=first.head, base_commit=first.base_commit), f"echo new > {DOCUMENTS}/new.md"
    )
    assert second.head != first.head
    assert second.code == first.code
    third = lab.run(lab.task(run=3, expected_head=second.head, base_commit=first.base_commit), "echo 2 > src/one.py")
    assert third.code != first.code


def test_places_agree_with_the_protocol(lab: Lab) -> None:
    task = lab.task()
    assert str(Places().git_dir(task)) == protocol.git_dir("shop")
    assert str(Places().tree(task)) == protocol.tree_dir("shop", "et-12")
