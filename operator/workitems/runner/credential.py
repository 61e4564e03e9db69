"""git's credential helper: prints what the files `username` and `password` of a folder hold.

git starts it as a program of its own (`git help credential`), so the secret goes from a file through a pipe and is
never in an argument, an environment variable, an address or a log. Standard library only, and no import of this
package: git starts it for every connection.
"""

from __future__ import annotations

import sys
from pathlib import Path


def answer(operation: str, folder: Path) -> str:
    """The helper's output for `get`; nothing for `store` and `erase`: the Secret is not ours to change."""
    if operation != "get":
        return ""
    password = (folder / "password").read_text(encoding="utf-8").strip("\r\n")
    name = folder / "username"
    # Forges that take a token as password do not look at the name, but git must send one.
    username = name.read_text(encoding="utf-8").strip("\r\n") if name.exists() else "git"
    return f"username={username}\npassword={password}\n"


if __name__ == "__main__":
    sys.stdout.write(answer(sys.argv[2], Path(sys.argv[1])))
