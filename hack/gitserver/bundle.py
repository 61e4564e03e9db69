"""Turns a folder into a git repository that travels as bytes, so that a test can serve any small repository.

The same folder gives the same commit everywhere, whoever runs it and whenever: author, date and order are fixed, and
the person's own git configuration is left out. A test may therefore name commits, and a git server in a cluster is
not replaced because somebody ran the demo a second time.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

AUTHOR = "Ada Shopkeeper"
EMAIL = "ada@shop.example"
DATE = "2026-11-01T09:00:00+00:00"


class BundleError(Exception):
    """The folder cannot become a repository; the message says why."""


def bundle(folder: Path, branch: str = "main", message: str = "Start the shop") -> bytes:
    """Return a git bundle of one commit on `branch` with the folder's files, those in its .gitignore left out.

    Raises BundleError where the folder holds no file, or git refuses it.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder} is no folder: name the one that holds the files of the repository")
    with tempfile.TemporaryDirectory() as scratch:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": scratch,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_DIR": f"{scratch}/repository",
            "GIT_WORK_TREE": str(folder.resolve()),
            **{f"GIT_{who}_NAME": AUTHOR for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": EMAIL for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_DATE": DATE for who in ("AUTHOR", "COMMITTER")},
        }

        def git(*arguments: str) -> bytes:
            command = ["git", "-c", "pack.threads=1", *arguments]
            done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=False)
            if done.returncode != 0:
                reason = (done.stderr or done.stdout).decode(errors="replace").strip()
                raise BundleError(f"git {arguments[0]} of {folder} failed: {reason}")
            return done.stdout

        git("init", "--quiet", f"--initial-branch={branch}")
        git("add", "--all")
        if not git("ls-files"):
            raise BundleError(f"{folder} holds no file to commit: an empty repository has no branch to start from")
        git("commit", "--quiet", "--no-gpg-sign", f"--message={message}")
        return git("bundle", "create", "--quiet", "-", "HEAD", branch)
