"""The git server of demos and tests against the real git client: what it takes, what it refuses, what it logs."""

from __future__ import annotations

import base64
import concurrent.futures
import gzip
import http.client
import os
import subprocess
import urllib.parse
from typing import TYPE_CHECKING

import pytest

from hack.gitserver import bundle, local, manifests

pytestmark = pytest.mark.slow


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ZERO = "0" * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "shop"
    (made / "src").mkdir(parents=True)
    (made / "src" / "cart.py").write_text("TOTAL = 0\n")
    (made / ".gitignore").write_text("*.pyc\n")
    (made / "left-out.pyc").write_text("cache")
    return made


@pytest.fixture
def server(tmp_path: Path, folder: Path) -> Iterator[local.Local]:
    with local.running(tmp_path / "server", {"shop": bundle.bundle(folder)}) as running:
        yield running


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    identity = {f"GIT_{who}_{what}": f"t@{who}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_TERMINAL_PROMPT": "0", **identity}
    return subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def done(folder: Path, *arguments: str) -> str:
    result = git(folder, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def with_password(server: local.Local, password: str) -> str:
    userinfo = f"{server.username}:{urllib.parse.quote(password, safe='')}"
    return server.url("shop").replace("http://", f"http://{userinfo}@")


@pytest.fixture
def clone(tmp_path: Path, server: local.Local) -> Path:
    done(tmp_path, "clone", "--quiet", with_password(server, server.password), "clone")
    return tmp_path / "clone"


def test_a_folder_gives_the_same_bytes_each_time_and_leaves_ignored_files_out(folder: Path, clone: Path) -> None:
    assert bundle.bundle(folder) == bundle.bundle(folder)
    assert done(clone, "ls-files").split() == [".gitignore", "src/cart.py"]
    assert done(clone, "branch", "--show-current") == "main"


def test_every_moved_reference_is_one_line_in_the_log(clone: Path, server: local.Local) -> None:
    head = done(clone, "rev-parse", "HEAD")
    done(clone, "push", "--quiet", "origin", 'HEAD:refs/heads/one"two', "HEAD:refs/heads/three")
    done(clone, "push", "--quiet", "origin", "HEAD:refs/heads/three")  # nothing moves, so nothing is logged
    done(clone, "push", "--quiet", "origin", ":refs/heads/three")
    assert [(push["ref"], push["old"], push["new"]) for push in server.pushes()] == [
        ('refs/heads/one"two', ZERO, head),
        ("refs/heads/three", ZERO, head),
        ("refs/heads/three", head, ZERO),
    ]


def test_a_push_of_thirty_megabytes_arrives_and_can_be_cloned(clone: Path, server: local.Local, tmp_path: Path) -> None:
    content = os.urandom(30_000_000)
    (clone / "large.bin").write_bytes(content)
    done(clone, "add", "large.bin")
    done(clone, "commit", "--quiet", "--message=large")
    done(clone, "push", "--quiet", "origin", "HEAD:refs/heads/large")
    done(tmp_path, "clone", "--quiet", "--branch=large", with_password(server, server.password), "again")
    assert (tmp_path / "again" / "large.bin").read_bytes() == content


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_refused_for_reading_and_for_writing(
    clone: Path, server: local.Local, password: str
) -> None:
    refused = with_password(server, password)
    for arguments in (("ls-remote", refused), ("push", refused, "HEAD:refs/heads/stolen")):
        result = git(clone, *arguments)
        assert result.returncode != 0
        assert "Authentication failed" in result.stderr
    assert server.pushes() == []


def test_a_lease_on_a_head_that_moved_is_refused(clone: Path, server: local.Local) -> None:
    done(clone, "commit", "--quiet", "--allow-empty", "--message=mine")
    result = git(clone, "push", f"--force-with-lease=main:{ZERO}", "origin", "HEAD:main")
    assert result.returncode != 0
    assert server.pushes() == []


def test_many_pushes_at_once_are_all_logged_on_lines_of_their_own(clone: Path, server: local.Local) -> None:
    branches = [f"refs/heads/branch-{number}" for number in range(12)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda branch: done(clone, "push", "--quiet", "origin", f"HEAD:{branch}"), branches))
    assert sorted(push["ref"] for push in server.pushes()) == sorted(branches)


def request(server: local.Local, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """Send a request by hand, for what the git client only does to large bodies."""
    token = base64.b64encode(f"{server.username}:{server.password}".encode()).decode()
    connection = http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=20)
    connection.request("POST", path, body, {"Authorization": f"Basic {token}", **headers})
    answer = connection.getresponse()
    content = answer.status, answer.read()
    connection.close()
    return content


LS_REFS = b"0014command=ls-refs\n0000"
FETCH = {"Content-Type": "application/x-git-upload-pack-request", "Git-Protocol": "version=2"}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with length", "chunked"])
def test_a_request_is_understood_however_its_body_is_wrapped(server: local.Local, packed: bool, chunked: bool) -> None:
    body, headers = LS_REFS, dict(FETCH)
    if packed:
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
        body = b"".join(b"%x\r\n%b\r\n" % (1, body[n : n + 1]) for n in range(len(body))) + b"0\r\n\r\n"
    status, answer = request(server, "/shop.git/git-upload-pack", body, headers)
    assert status == 200
    assert b"refs/heads/main" in answer


def test_a_body_that_breaks_off_moves_no_reference_and_the_server_goes_on(clone: Path, server: local.Local) -> None:
    head = done(clone, "rev-parse", "HEAD")
    command = f"{ZERO} {head} refs/heads/broken\0 report-status".encode()
    body = b"%04x%b0000" % (len(command) + 4, command)
    headers = {"Content-Type": "application/x-git-receive-pack-request", "Transfer-Encoding": "chunked"}
    request(server, "/shop.git/git-receive-pack", b"%x\r\n%bgarbage" % (len(body), body), headers)
    assert server.pushes() == []
    assert "broken" not in done(clone, "ls-remote", "origin")


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/nothing.git/git-upload-pack"])
def test_what_is_not_a_repository_is_refused(server: local.Local, path: str) -> None:
    status, answer = request(server, path, LS_REFS, FETCH)
    assert status >= 400
    assert b"root:" not in answer


def test_a_repository_too_large_for_a_config_map_is_refused_by_name() -> None:
    server = manifests.GitServer("demo", "image")
    with pytest.raises(ValueError, match="shop take 4000000 bytes as base64"):
        manifests.manifests(server, {"shop": bytes(3_000_000)})
