"""Turns what git prints into reasons and sentences that a person can act on.

git has one exit code for everything, so its stderr (in the C locale) is the only source. The table is in order of
trust: what the local side says comes before what the remote may have caused, and lines that start with `remote:`
are the server's words, which must not pass for ours (its full disk is not our full volume).
"""

from __future__ import annotations

import dataclasses
import errno
import re

from workitems.errors import WorkItemsError
from workitems.plain import readable
from workitems.protocol import Problem

MESSAGE_CHARACTERS = 1000


class RunProblemError(WorkItemsError):
    """The run cannot be prepared or published; `problem` goes into the report as it is."""

    def __init__(self, reason: str, message: str, *, retry: bool = False) -> None:
        """Take the CamelCase reason, the sentence, and whether waiting may help."""
        super().__init__(message)
        self.problem = Problem(reason=reason, message=readable(message, MESSAGE_CHARACTERS), retry=retry)


class GitError(WorkItemsError):
    """A git command failed for a reason that is not in the table: our own repository may be damaged."""

    def __init__(self, command: str, code: int, stderr: str) -> None:
        """Take the command as the log shows it, its exit code (negative: a signal) and what it printed."""
        super().__init__(f"git {command} ended with {code}: {last_lines(stderr)}")
        self.command = command
        self.stderr = stderr


class GitTimeoutError(GitError):
    """A git command was killed because it took too long."""

    def __init__(self, command: str, seconds: float) -> None:
        """Take the command and the limit it exceeded."""
        super().__init__(command, -9, f"killed after {seconds:.0f} s")


@dataclasses.dataclass(frozen=True)
class Remote:
    """What the sentences name: the address, and whether credentials were there to be refused."""

    url: str
    credentials: bool = True


@dataclasses.dataclass(frozen=True)
class _Sign:
    pattern: re.Pattern[str]
    reason: str
    sentence: str
    retry: bool = False


def _sign(pattern: str, reason: str, sentence: str, *, retry: bool = False) -> _Sign:
    return _Sign(re.compile(pattern, re.IGNORECASE), reason, sentence, retry)


FULL = "the worktree volume is full: give the claim more space, or delete what is not needed on it"

# Tried against git's own lines only.
_LOCAL = (
    # The last one is how git says that writing a file of the tree failed; opening it says "unable to create".
    _sign(r"No space left on device|Out of diskspace|Disk quota exceeded|unable to write file", "VolumeFull", FULL),
    _sign(
        r"No user exists for uid",
        "UnknownUser",
        "ssh does not run under a uid without a name: give the operator's image a passwd entry for it, or use https",
    ),
    _sign(
        r"SSL certificate problem|server certificate verification failed|self[- ]signed certificate"
        r"|certificate subject name|unable to get local issuer",
        "CertificateUntrusted",
        "the certificate of {url} is not trusted: put its authority into the Repository's caBundle",
    ),
    _sign(
        r"Host key verification failed|HOST IDENTIFICATION HAS CHANGED|host key is known for",
        "HostKeyUnknown",
        "the host key of {url} is not the one in known_hosts of the Repository's credentials Secret (ssh-keyscan "
        "prints it; compare it with what the server's owner publishes)",
    ),
)
# Tried against everything: only the server knows.
_REMOTE = (
    _sign(
        r"returned error: 404|repository '.*' not found|Repository not found|remote: Not found"
        r"|does not appear to be a git repository|repository '.*' does not exist|Cannot find repository"
        r"|info/refs not valid: is this a git repository",
        "RepositoryNotFound",
        "there is no repository at {url}, or the credentials may not see it: check the Repository's url and Secret",
    ),
    _sign(
        r"Authentication failed|returned error: (401|403)|could not read (Username|Password)|Permission denied \("
        r"|Access denied|Invalid username or",
        "CredentialsRefused",
        "{url} refused the credentials: {which}",
    ),
    _sign(
        r"Could not resolve|Failed to connect|Couldn't connect|Connection (refused|timed out|reset|closed)"
        r"|(Operation|Resolving) timed out|timed out after|returned error: (5\d\d|429|408)|early EOF"
        r"|unexpected disconnect|hung up unexpectedly|Empty reply|No route to host|Network is unreachable|RPC failed"
        r"|Recv failure|Send failure|Operation too slow|kex_exchange_identification|handshake failed|SSL_connect"
        r"|Broken pipe|transfer closed|Could not read from remote"
        # Whatever else kept curl from an answer: each TLS library has its own words for a connection cut short.
        r"|unable to access 'https?://",
        "RemoteUnreachable",
        "{url} does not answer: {line}",
        retry=True,
    ),
)


def classify(stderr: str, remote: Remote) -> RunProblemError | None:
    """The problem that git's stderr speaks of, or None where it is not about the remote or the volume's space."""
    ours = "\n".join(line for line in stderr.splitlines() if not line.startswith("remote:"))
    which = (
        "check username and password (or ssh-privatekey) in the Secret of spec.credentials, and what they may do"
        if remote.credentials
        else "the Repository names none; put them into a Secret and name it in spec.credentials"
    )
    for sign, text in [(sign, ours) for sign in _LOCAL] + [(sign, stderr) for sign in _REMOTE]:
        match = sign.pattern.search(text)
        if match:
            line = text[text.rfind("\n", 0, match.start()) + 1 :].split("\n", 1)[0]
            sentence = sign.sentence.format(url=remote.url, which=which, line=line)
            return RunProblemError(sign.reason, sentence, retry=sign.retry)
    return None


def from_os_error(error: OSError) -> RunProblemError | None:
    """The problem behind a failed file operation, or None where it is a defect of ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunProblemError("VolumeFull", FULL)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RunProblemError(
            "VolumeNotWritable",
            f"the runner may not write {error.filename}: the volume must be writable by its user or fsGroup",
        )
    if error.errno in (errno.EIO, errno.ESTALE):
        return RunProblemError("VolumeBroken", f"the volume fails at {error.filename}: {error.strerror}", retry=True)
    return None


def last_lines(text: str, count: int = 3) -> str:
    """The last lines of a program's output in one line."""
    return " / ".join([line.strip() for line in text.splitlines() if line.strip()][-count:])


def remote_lines(stderr: str, count: int = 5) -> str:
    """The first lines that the server printed, in one line."""
    lines = [line.removeprefix("remote:").strip() for line in stderr.splitlines() if line.startswith("remote:")]
    return " / ".join([line for line in lines if line][:count])
