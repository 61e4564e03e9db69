"""Hands git the password of the mounted Secret, as its credential helper.

git asks its helper only when a server wants to be told who is there, and only for the address that the helper is
configured for (gitcredentials(7)). The script reads the mounted files at that moment, so a Secret that was renewed
during a long run counts, and what it prints goes to git through a pipe: it is never in an argument, an environment
variable, an address or a log. It is shell, because git starts it twice for every connection, and Python took longer to
start than all that git itself did.
"""

from __future__ import annotations

import shlex
from pathlib import Path

USERNAME, PASSWORD = "username", "password"

# Builtins alone. `get` is answered; not `store` and `erase`: the Secret is not ours to change. Forges that take a token
# as password do not look at the name, but git must send one. A file's line is its first that is not empty, without the
# end that an editor left; `read` fails at a last line without an end, and has it.
_SCRIPT = """\
say() {{
  line=
  while IFS= read -r line || [ -n "$line" ]; do
    line=${{line%"$end"}}
    [ -z "$line" ] || break
  done <"$1"
  printf '%s=%s\\n' "$1" "$line"
}}
helper() {{
  [ "$1" = get ] || return 0
  cd -- {folder} || return 1
  end=$(printf '\\r')
  if [ -e {username} ]; then say {username}; else echo {username}=git; fi
  say {password}
}}
helper"""


def helper(folder: Path) -> str:
    """The value of git's setting `credential.<address>.helper` for a folder that holds the Secret's files."""
    return "!" + _SCRIPT.format(folder=shlex.quote(str(folder)), username=USERNAME, password=PASSWORD)
