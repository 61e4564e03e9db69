"""Whatever a run saw, its report fits into a termination message and can be read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workitems.core.stages import DOCUMENTS_WATCHED
from workitems.protocol import REPORT_LIMIT, AgentEnding, Excerpt, Problem, RunReport, Usage, Verdict
from workitems.runner import problems, report

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
HASH = st.text("0123456789abcdef", min_size=40, max_size=40)
REPORTS = st.builds(
    RunReport,
    run=st.integers(1, 10**6),
    uid=st.just("8d1f3c1e-4b3e-4f3a-9a7e-0123456789ab"),
    base_commit=st.none() | HASH,
    head=st.none() | HASH,
    tree=st.none() | HASH,
    code=st.just("sha256:" + "0" * 64),
    blobs=st.integers(0, 256).flatmap(lambda n: st.just(tuple("a" * 40 if i % 3 else None for i in range(n)))),
    diverted_to=st.none() | st.just("workitems/" + "x" * 240),
    left_out=st.lists(TEXT.map(lambda t: t[:255]), max_size=20).map(tuple),
    left_out_total=st.integers(0, 10**6),
    verdicts=st.lists(
        st.builds(
            Verdict,
            file=TEXT.map(lambda t: t[:255]),
            values=st.lists(TEXT.map(lambda t: t[:63]), max_size=4).map(tuple),
        ),
        max_size=32,
    ).map(tuple),
    excerpts=st.lists(
        st.builds(
            Excerpt, file=st.just("docs/a.md"), text=st.sampled_from(["я", "\x00", '"', "x"]).map(lambda c: c * 4096)
        ),
        max_size=16,
    ).map(tuple),
    ending=st.none()
    | st.builds(
        AgentEnding,
        reason=st.just("ModelRateLimited"),
        message=TEXT.map(lambda t: (t * 50)[:512]),
        model=st.none() | TEXT.map(lambda t: (t * 50)[:100]),
        session=st.none() | st.just("8d1f3c1e-4b3e-4f3a-9a7e-0123456789ab"),
        denied=st.lists(TEXT.map(lambda t: t[:64]), max_size=8).map(tuple),
    ),
    usage=st.none() | st.just(Usage(10**12, 10**12, 10**12, "999999999.999999", 10**6)),
    problem=st.none() | st.builds(Problem, reason=st.just("GitFailed"), message=TEXT.map(lambda t: (t * 50)[:1024])),
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(REPORTS)
def test_a_report_always_fits_and_is_a_report(full: RunReport) -> None:
    text = report.fit(full)
    assert len(text.encode()) <= REPORT_LIMIT
    read = RunReport.strictly(text)
    assert (read.run, read.uid, read.head, read.code) == (full.run, full.uid, full.head, full.code)
    if read.problem is None:
        assert read.blobs == full.blobs
        assert full.problem is None
    else:
        assert (full.problem is not None) or read.problem.reason == "TooManyDocuments"
    assert (read.usage, read.ending is None) == (full.usage, full.ending is None)


def empty(**fields: Any) -> RunReport:
    return RunReport(**{"run": 1, "uid": "u", **fields})


def test_verdicts_come_before_excerpts_and_excerpts_fill_the_rest() -> None:
    verdict = Verdict(file="docs/12-review.md", values=("APPROVED",))
    excerpts = tuple(Excerpt(file=f"docs/{n}.md", text="я" * 4000) for n in range(6))
    read = RunReport.strictly(report.fit(empty(verdicts=(verdict,), excerpts=excerpts)))
    assert read.verdicts == (verdict,)
    assert len(read.excerpts) >= 3
    assert len(read.excerpts[0].text) == 500
    assert set(read.excerpts[0].text) == {"я"}


@pytest.mark.parametrize("letter", ["x", "ж", "字", "𝔘", '"', "\n"])
def test_500_characters_of_any_language_have_room_beside_what_an_ordinary_run_reports(letter: str) -> None:
    long = letter * 2000
    verdict = "docs/workitems/et-12/12-review.md"
    full = empty(
        uid="8d1f3c1e-4b3e-4f3a-9a7e-0123456789ab",
        base_commit="a" * 40,
        head="b" * 40,
        tree="c" * 40,
        code=f"sha256:{'0' * 64}",
        blobs=("d" * 40,) * 16,
        verdicts=(Verdict(verdict, ("REQUEST_CHANGES",)),),
        excerpts=(Excerpt("docs/workitems/et-12/10-conflict.md", long), Excerpt(verdict, long)),
        usage=Usage(10**7, 10**6, 10**7, "12.345678", 100),
        ending=AgentEnding("Succeeded", model="m" * 40, session="8d1f3c1e-4b3e-4f3a-9a7e-0123456789ab"),
    )
    first = RunReport.strictly(report.fit(full)).excerpts[0]
    assert first.text.startswith(long[:500])
    assert first.cut


def test_an_excerpt_says_whether_its_document_goes_on() -> None:
    read = RunReport.strictly(report.fit(empty(excerpts=(Excerpt("a", "x" * 500), Excerpt("b", "x" * 2000)))))
    whole, cut = read.excerpts
    assert (whole.text, whole.cut) == ("x" * 500, None)
    assert cut.cut


def test_small_reports_are_left_as_they_are() -> None:
    full = empty(left_out=("a", "b"), left_out_total=2, excerpts=(Excerpt(file="f", text="t"),), blobs=(None, "a" * 40))
    assert RunReport.strictly(report.fit(full)) == full


def test_two_verdicts_stay_two_even_if_they_must_be_short() -> None:
    files = tuple(Verdict(file=f"docs/{n}.md", values=("A" * 63, "B" * 63, "C" * 63)) for n in range(20))
    read = RunReport.strictly(report.fit(empty(verdicts=files)))
    assert all(len(verdict.values) >= 2 for verdict in read.verdicts)


def test_names_that_are_too_long_leave_room_for_the_rest() -> None:
    read = RunReport.strictly(report.fit(empty(left_out=("x" * 255,) * 20, left_out_total=20)))
    assert len(read.left_out) == 2
    assert read.left_out_total == 20


def test_more_documents_than_a_report_can_hold_are_a_problem_not_a_guess() -> None:
    read = RunReport.strictly(report.fit(empty(blobs=("a" * 40,) * 200)))
    assert read.problem is not None
    assert read.problem.reason == "TooManyDocuments"
    assert "200" in read.problem.message
    assert read.blobs == ()


def test_the_longest_words_of_an_agent_leave_room_for_all_documents_that_a_pipeline_may_name() -> None:
    full = empty(
        base_commit="b" * 64,
        head="c" * 64,
        tree="d" * 64,
        code="sha256:" + "0" * 64,
        blobs=("a" * 64,) * DOCUMENTS_WATCHED,
        usage=Usage(10**12, 10**12, 10**12, "999999999.999999", 10**6),
        ending=AgentEnding(
            "ModelRequestRefused", "я" * 500, "m" * 100, "8d1f3c1e-4b3e-4f3a-9a7e-0123456789ab", ("ы" * 64,) * 8
        ),
    )
    read = RunReport.strictly(report.fit(full))
    assert read.blobs == full.blobs
    assert read.ending is not None
    assert (read.ending.reason, read.ending.session) == ("ModelRequestRefused", "8d1f3c1e-4b3e-4f3a-9a7e-0123456789ab")


def test_the_message_is_written_into_the_file_that_the_kubelet_has_mounted(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.write_text("x" * 5000)
    number = path.stat().st_ino
    report.write(empty(), path)
    assert path.stat().st_ino == number
    assert RunReport.strictly(path.read_text()) == empty()


def test_stderr_is_classified_by_our_lines_first() -> None:
    remote = problems.Remote("https://git.example.com/shop.git")
    table = {
        "fatal: write error: No space left on device\nfatal: early EOF": ("VolumeFull", False),
        "fatal: unable to access 'https://x/': Could not resolve host: x": ("RemoteUnreachable", True),
        "fatal: unable to access 'u': Failed to connect to x port 443 after 1 ms: Couldn't connect to server": (
            "RemoteUnreachable",
            True,
        ),
        "fatal: unable to access 'https://x/y/': gnutls_handshake() failed: The TLS connection was non-properly "
        "terminated.": ("RemoteUnreachable", True),
        "fatal: unable to access 'https://x/y/': The requested URL returned error: 403": ("CredentialsRefused", False),
        "fatal: https://x/y/info/refs not valid: is this a git repository?": ("RepositoryNotFound", False),
        "fatal: unable to access 'u': The requested URL returned error: 502": ("RemoteUnreachable", True),
        "fatal: unable to access 'u': The requested URL returned error: 403": ("CredentialsRefused", False),
        "remote: Invalid username or password.\nfatal: Authentication failed for 'u'": ("CredentialsRefused", False),
        "git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.": (
            "CredentialsRefused",
            False,
        ),
        "fatal: repository 'https://x/y.git/' not found": ("RepositoryNotFound", False),
        "ERROR: Repository not found.\nfatal: Could not read from remote repository.": ("RepositoryNotFound", False),
        "Host key verification failed.\nfatal: Could not read from remote repository.": ("HostKeyUnknown", False),
        "fatal: unable to access 'u': server certificate verification failed. CAfile: none": (
            "CertificateUntrusted",
            False,
        ),
        "ssh: connect to host x port 22: Connection refused\nfatal: Could not read from remote repository.": (
            "RemoteUnreachable",
            True,
        ),
        "No user exists for uid 1234": ("UnknownUser", False),
    }
    for stderr, expected in table.items():
        found = problems.classify(stderr, remote)
        assert found is not None, stderr
        assert (found.problem.reason, found.problem.retry) == expected, stderr
    assert problems.classify("warning: unable to access '/x/.gitignore': Permission denied", remote) is None
    assert problems.classify("error: object file x is empty\nfatal: loose object x is corrupt", remote) is None
