"""What our schemas accept, git accepts: the rules for branches, paths and addresses against git itself."""

from __future__ import annotations

import re
import subprocess
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from workitems.api import duration
from workitems.api.common import BRANCH_PATTERN, DURATION_PATTERN, Branch, CommitPath, Money, RepositoryPath, RootFile
from workitems.api.container import MountPath
from workitems.api.repository import URL_PATTERN

CONTROL = {".", "/", "-", "@", "{", "}", "~", "^", ":", "?", "*", "[", "\\", " ", "\t", "\n", "\x7f", "\x00", "é"}
WORDS = [*sorted(CONTROL), "a", "b", "refs/heads/", "HEAD", ".lock", "..", "@{", "//", "x"]
NAMES = st.lists(st.sampled_from(WORDS) | st.characters(codec="utf-8"), min_size=1, max_size=8).map("".join)
# As CEL and Python say the same in different words, these stand beside each other in common.BRANCH_RULES and INSIDE.
BRANCH_REFUSED_PARTS = ("..", "@{", "//", "/.", ".lock/", "/-")
BRANCH_REFUSED_ENDS = ("/", ".", ".lock")


def accepts_branch(name: str) -> bool:
    return (
        len(name) <= 200
        and re.fullmatch(BRANCH_PATTERN, name) is not None
        and not any(part in name for part in BRANCH_REFUSED_PARTS)
        and not name.endswith(BRANCH_REFUSED_ENDS)
        and not name.startswith("refs/")
        and name != "HEAD"
    )


def stays_inside(path: str) -> bool:
    return re.search(r"(?i)/\.(\.|git)?/", f"/{path}/") is None


def git_accepts(name: str) -> bool:
    if "\x00" in name:
        return False
    return (
        subprocess.run(["git", "check-ref-format", "--branch", name], capture_output=True, check=False).returncode == 0
    )


def accepts(kind: Any, value: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def test_the_python_mirror_says_what_the_rules_say() -> None:
    (schema,) = [TypeAdapter(Branch).json_schema()]
    text = " ".join(rule["rule"] for rule in schema["x-kubernetes-validations"])
    found = {
        kind: set(re.findall(rf"self\.{kind}\('([^']*)'\)", text)) for kind in ("contains", "endsWith", "startsWith")
    }
    assert found == {
        "contains": set(BRANCH_REFUSED_PARTS),
        "endsWith": set(BRANCH_REFUSED_ENDS),
        "startsWith": {"refs/"},
    }


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(NAMES)
@example("a.lock/b")
@example("a/.b")
@example("a@{b")
@example("é/ж")
def test_a_branch_that_we_accept_git_accepts(name: str) -> None:
    if accepts_branch(name):
        assert git_accepts(name)


@given(NAMES)
def test_the_models_and_the_mirror_agree_on_the_pattern(name: str) -> None:
    # Rust's regular expressions are the models', Go's the API server's: Unicode spaces are \s to the former alone.
    if accepts(Branch, name):
        assert re.fullmatch(BRANCH_PATTERN, name, re.ASCII)


@pytest.mark.parametrize(
    "name", ["main", "feature/et-12-discounts", "workitem/et-12", "release-1.2", "a", "user@host", "fix_#12", "ветка/1"]
)
def test_usual_branches_are_accepted(name: str) -> None:
    assert accepts_branch(name)
    assert accepts(Branch, name)
    assert git_accepts(name)


@given(
    st.lists(st.sampled_from(["..", ".", ".git", ".GIT", "a", "", "/", "docs", ".gitignore", "...", ":"])).map("/".join)
)
def test_a_path_that_we_accept_stays_inside(path: str) -> None:
    for kind in (RepositoryPath, RootFile, CommitPath):
        if accepts(kind, path) and stays_inside(path):
            parts = path.strip("/").split("/")
            assert "" not in parts
            assert not {".", ".."} & set(parts)
            assert ".git" not in {part.lower() for part in parts}


@pytest.mark.parametrize(
    ("kind", "path", "expected"),
    [
        (RepositoryPath, "02-brd.md", True),
        (RepositoryPath, "/README.md", True),
        (RepositoryPath, "{item}/x.md", True),
        (RepositoryPath, "docs/", False),
        (RepositoryPath, "a//b", False),
        (RepositoryPath, "a\nb", False),
        (RepositoryPath, "a\x00b", False),
        (RepositoryPath, "a\\b", False),
        (RootFile, ".openclaw/agents/analyst.md", True),
        (RootFile, "/etc/passwd", False),
        (CommitPath, "docs/", True),
        (CommitPath, ".", True),
        (CommitPath, "/", False),
        (CommitPath, ":(top)", False),
        (MountPath, "/cache", True),
        (MountPath, "cache", False),
    ],
)
def test_paths(kind: Any, path: str, expected: bool) -> None:
    assert accepts(kind, path) is expected


@given(st.from_regex(re.compile(DURATION_PATTERN, re.ASCII), fullmatch=True))
def test_the_pattern_of_durations_and_their_reader_agree(text: str) -> None:
    if re.search("[1-9]", text):
        assert duration(text) > timedelta()
    else:
        with pytest.raises(ValueError, match="is no duration"):
            duration(text)


@given(st.text(alphabet="0123456789hmsd.- \n", max_size=8))
def test_the_reader_of_durations_takes_nothing_that_the_pattern_refuses(text: str) -> None:
    try:
        duration(text)
    except ValueError:
        return
    assert re.fullmatch(DURATION_PATTERN, text)


@pytest.mark.parametrize(
    ("text", "expected"), [("25", True), ("0.0024", True), ("$25", False), ("-1", False), ("1,5", False), ("", False)]
)
def test_money(text: str, expected: bool) -> None:
    assert accepts(Money, text) is expected


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.com/shop/web.git",
        "http://127.0.0.1:3000/shop/web",
        "https://git.example.com/~user/web.git",
        "https://github.com/o/r@2.git",
        "ssh://git@git.example.com:2222/shop/web.git",
        "ssh://git.example.com/shop/web.git",
        "git@git.example.com:shop/web.git",
    ],
)
def test_usual_addresses_are_accepted(url: str) -> None:
    assert re.fullmatch(URL_PATTERN, url)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@git.example.com/shop/web.git",
        "https://token@git.example.com/shop/web.git",
        "ssh://user:secret@git.example.com/shop/web.git",
        "ext::sh -c reboot",
        "ext::sh@x:y",
        "file:///etc",
        "/srv/git/web.git",
        "-oProxyCommand=reboot",
        "ssh://-oProxyCommand=reboot/x",
        "ssh://git@-oProxyCommand=reboot/x",
        "git@-oProxyCommand=reboot:x",
        "-u@host:x",
        "git@host:-x",
        "https://git.example.com/a b",
        "https://git.example.com/a\nb",
        "git://git.example.com/web.git",
        "",
    ],
)
def test_dangerous_addresses_are_refused(url: str) -> None:
    assert not re.fullmatch(URL_PATTERN, url)
