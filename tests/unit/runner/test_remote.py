"""Real servers on loopback: credentials over HTTP and ssh, and every way in which a remote can say no."""

from __future__ import annotations

import dataclasses
import getpass
import http.server as web
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from hack.cluster import ports
from hack.gitserver import server
from tests.unit.runner.lab import Lab, git
from workitems.runner import credential
from workitems.runner.places import Places
from workitems.runner.problems import RunProblemError
from workitems.runner.remote import connect, persist

pytestmark = pytest.mark.slow


PASSWORD = "s3cr3t p@ss/w0rd'$(x)"


@pytest.fixture
def http(lab: Lab) -> Iterator[Lab]:
    """The lab's remote behind the demo's git server, which asks for a password."""
    lab.places.credentials.mkdir()
    (lab.places.credentials / "username").write_text("bot\n")
    (lab.places.credentials / "password").write_text(PASSWORD + "\n")
    accounts = lab.root / "accounts"
    shutil.copytree(lab.places.credentials, accounts)
    git("--git-dir", str(lab.remote), "config", "http.receivepack", "true")
    settings = server.Settings(lab.root, lab.root / "seed", accounts, lab.root / "pushes.jsonl")
    running = server.Server(settings, ("127.0.0.1", 0))
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    lab.url = f"http://127.0.0.1:{running.server_address[1]}/remote.git"
    lab.places = dataclasses.replace(lab.places, allow_file=False)
    yield lab
    running.shutdown()
    running.server_close()
    thread.join()


def reason(lab: Lab, **changes: object) -> tuple[str, bool]:
    report = lab.run(lab.task(**changes))
    assert report.problem is not None
    return report.problem.reason, report.problem.retry


def test_a_run_over_http_with_a_password_that_shows_nowhere(http: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []

    def spy() -> None:
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    seen.append((process / name).read_bytes().decode(errors="replace"))
                except OSError:
                    continue  # it ended, or is not ours

    report = http.run(http.task(), "echo 1 > src/one", during=spy)
    assert (report.problem, report.pushed, report.head) == (None, True, http.head())
    text = caplog.text + http.places.report.read_text() + http.agent_log + "".join(seen)
    assert "git fetch" in caplog.text
    assert "s3cr3t" not in text
    volume = subprocess.run(["grep", "-rIl", "s3cr3t", str(http.places.volume)], capture_output=True, check=False)
    assert volume.stdout == b""


def test_a_wrong_password_is_named_as_such(http: Lab) -> None:
    (http.places.credentials / "password").write_text("wrong")
    assert reason(http) == ("CredentialsRefused", False)


def test_missing_credentials_are_asked_for(http: Lab) -> None:
    shutil.rmtree(http.places.credentials)
    report = http.run(http.task())
    assert report.problem is not None
    assert report.problem.reason == "CredentialsRefused"
    assert "spec.credentials" in report.problem.message


def test_a_password_that_expires_during_the_run_is_a_problem_of_the_push(http: Lab) -> None:
    report = http.run(
        http.task(), "echo 1 > src/one", during=lambda: (http.root / "accounts/password").write_text("new")
    )
    assert report.problem is not None
    assert report.problem.reason == "CredentialsRefused"
    assert (report.committed, report.pushed) == (True, False)


def test_a_repository_that_is_not_there(http: Lab) -> None:
    assert reason(http, url=http.url.replace("remote.git", "absent.git")) == ("RepositoryNotFound", False)


def test_a_local_path_is_no_remote(lab: Lab) -> None:
    lab.places = dataclasses.replace(lab.places, allow_file=False)
    report = lab.run(lab.task())
    assert report.problem is not None
    assert report.problem.reason == "GitFailed"
    assert "not allowed" in report.problem.message


def test_ext_and_options_are_no_remotes(lab: Lab) -> None:
    for url in (f"ext::touch {lab.root}/pwned", f"--upload-pack=touch {lab.root}/pwned", f"-u{lab.root}/pwned"):
        assert lab.run(lab.task(url=url)).problem is not None
    assert not (lab.root / "pwned").exists()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens but who is told of it: another test process would soon get one that is free."""
    with ports.held() as holder:
        yield ports.number(holder)


def test_a_refused_connection_is_retried_and_then_worth_another_run(
    lab: Lab, closed_port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    # The tries' own time counts, and on a busy machine the first may take all there is: the delays alone end it here.
    monkeypatch.setattr("workitems.runner.remote.time", SimpleNamespace(monotonic=lambda: 0.0))
    assert reason(lab, url=f"http://127.0.0.1:{closed_port}/x.git") == ("RemoteUnreachable", True)
    assert caplog.text.count("git fetch") >= 2


def test_an_unknown_host_is_unreachable(lab: Lab) -> None:
    assert reason(lab, url="http://git.invalid/x.git") == ("RemoteUnreachable", True)


def test_a_server_that_accepts_and_never_answers_is_given_up(lab: Lab) -> None:
    lab.patience = dataclasses.replace(lab.patience, network=0.5, fetch_retries=0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert reason(lab, url=f"http://127.0.0.1:{silent.getsockname()[1]}/x.git") == ("RemoteUnreachable", True)


def test_a_server_that_comes_back_in_time_costs_no_run(http: Lab, closed_port: int) -> None:
    away, port = http.root / "away", closed_port
    http.patience = dataclasses.replace(http.patience, fetch_retries=20)
    upstream = int(http.url.split(":")[2].split("/")[0])

    def forward() -> None:
        time.sleep(0.5)
        subprocess.run([sys.executable, "-c", FORWARDER, str(port), str(upstream), str(away)], check=False, timeout=30)

    thread = threading.Thread(target=forward)
    thread.start()
    try:
        report = http.run(http.task(url=f"http://127.0.0.1:{port}/remote.git"), "echo 1 > src/one")
    finally:
        away.touch()
        thread.join()
    assert (report.problem, report.pushed) == (None, True)


FORWARDER = """
import socket, sys, threading, pathlib
port, upstream, away = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
listener = socket.socket(); listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", port)); listener.listen(); listener.settimeout(0.2)
def pump(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError: pass
while not away.exists():
    try: client, _ = listener.accept()
    except TimeoutError: continue
    client.settimeout(None)
    server = socket.create_connection(("127.0.0.1", upstream))
    for pair in ((client, server), (server, client)): threading.Thread(target=pump, args=pair, daemon=True).start()
"""


def test_a_redirect_to_another_host_gets_no_credentials(http: Lab) -> None:
    asked: list[str | None] = []

    class Thief(web.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization"))
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="give me"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            pass

    class Redirect(Thief):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{thief.server_address[1]}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

    thief, redirect = (web.ThreadingHTTPServer(("127.0.0.1", 0), kind) for kind in (Thief, Redirect))
    for each in (thief, redirect):
        threading.Thread(target=each.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{redirect.server_address[1]}/x.git"
        assert reason(http, url=url) == ("CredentialsRefused", False)
    finally:
        for each in (thief, redirect):
            each.shutdown()
            each.server_close()
    assert asked
    assert set(asked) == {None}


@pytest.fixture
def https(lab: Lab) -> Iterator[Lab]:
    """Something that speaks TLS with a certificate of its own; no git behind it is needed."""
    certificate, key = lab.root / "server.crt", lab.root / "server.key"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(client, server_side=True) as channel:
                    channel.recv(65536)
                    channel.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            except (ssl.SSLError, OSError):
                client.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    lab.url = f"https://127.0.0.1:{listener.getsockname()[1]}/shop.git"
    yield lab
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_certificate_that_nobody_vouches_for_names_the_ca_bundle(https: Lab) -> None:
    report = https.run(https.task())
    assert report.problem is not None
    assert report.problem.reason == "CertificateUntrusted"
    assert "caBundle" in report.problem.message


def test_the_mounted_ca_file_is_trusted(https: Lab) -> None:
    shutil.copy(https.root / "server.crt", https.places.ca_file)
    assert reason(https) == ("RepositoryNotFound", False)


@pytest.fixture
def sshd(lab: Lab, closed_port: int) -> Iterator[Lab]:
    """A real sshd on loopback; the key as a Secret has it: readable by the group, without the last line's end."""
    daemon = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if daemon is None:
        pytest.fail("install sshd: ssh must be tried against the real one (Debian: apt-get install openssh-server)")
    for name in ("host", "client", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(lab.root / name)], check=True)
    (lab.root / "authorized_keys").write_bytes((lab.root / "client.pub").read_bytes())
    port = closed_port
    (lab.root / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {lab.root}/host\nAuthorizedKeysFile {lab.root}/authorized_keys\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([daemon, "-D", "-e", "-f", str(lab.root / "sshd_config")], stderr=subprocess.DEVNULL)
    folder = lab.places.credentials
    folder.mkdir()
    (folder / "ssh-privatekey").write_text((lab.root / "client").read_text().rstrip("\n"))
    (folder / "ssh-privatekey").chmod(0o640)
    host = (lab.root / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host}")
    lab.url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{lab.remote}"
    lab.places = dataclasses.replace(lab.places, allow_file=False)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield lab
    process.terminate()
    process.wait()


def test_a_run_over_ssh(sshd: Lab) -> None:
    report = sshd.run(sshd.task(), "echo 1 > src/one")
    assert (report.problem, report.pushed, report.head) == (None, True, sshd.head())


def test_a_key_that_the_server_does_not_know(sshd: Lab) -> None:
    shutil.copy(sshd.root / "other", sshd.places.credentials / "ssh-privatekey")
    assert reason(sshd) == ("CredentialsRefused", False)


def test_a_server_that_is_not_the_one_in_known_hosts(sshd: Lab) -> None:
    hosts = sshd.places.credentials / "known_hosts"
    address = hosts.read_text().split()[0]
    hosts.write_text(f"{address} {(sshd.root / 'other.pub').read_text()}")
    assert reason(sshd) == ("HostKeyUnknown", False)
    hosts.write_text("")
    assert reason(sshd) == ("HostKeyUnknown", False)


def test_a_key_without_known_hosts_is_not_used(sshd: Lab) -> None:
    (sshd.places.credentials / "known_hosts").unlink()
    report = sshd.run(sshd.task())
    assert report.problem is not None
    assert report.problem.reason == "HostKeyUnknown"
    assert "known_hosts" in report.problem.message


def test_a_repository_that_is_not_there_over_ssh(sshd: Lab) -> None:
    assert reason(sshd, url=sshd.url.replace("remote.git", "absent.git")) == ("RepositoryNotFound", False)


def test_the_credential_helper_answers_get_alone(tmp_path: Path) -> None:
    folder = tmp_path / "it's a $(folder)"
    folder.mkdir()

    def answer(operation: str) -> str:
        # As git calls it: by sh, with the operation behind the command.
        command = f"{credential.helper(folder).removeprefix('!')} {operation}"
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout

    for text in ("token", "token\r\n", "\r\n\ntoken\n\r\n"):
        (folder / "password").write_text(text)
        assert answer("get") == "username=git\npassword=token\n"
    (folder / "username").write_text("bot")
    strange = " to$k'e\\n`%s\" "
    (folder / "password").write_text(strange)
    assert answer("get") == f"username=bot\npassword={strange}\n"
    assert answer("store") == ""
    assert answer("erase") == ""


def test_git_inherits_nothing_of_the_pods_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_TRACE_CURL", "/tmp/trace")
    monkeypatch.setenv("API_KEY", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    made = connect(Places(credentials=tmp_path, ca_file=tmp_path / "x"), "https://x/y", Lab.patience)
    assert "API_KEY" not in made.environment
    assert "GIT_TRACE_CURL" not in made.environment
    assert made.environment["HTTPS_PROXY"] == "http://proxy:3128"
    assert made.environment["GIT_ALLOW_PROTOCOL"] == "http:https:ssh"


def test_patience_ends_when_the_time_is_over_or_the_pod_goes() -> None:
    calls: list[float] = []

    def fail() -> None:
        raise RunProblemError("RemoteUnreachable", "x", retry=True)

    def sleep(seconds: float) -> bool:
        calls.append(seconds)
        return False

    with pytest.raises(RunProblemError):
        persist(fail, 60, 1, sleep)
    assert calls == [1, 2, 4, 8, 16, 16]
    with pytest.raises(RunProblemError):
        persist(fail, 60, 1, lambda _: True)
