"""The first process of an agent's container: waits for the runner, runs the agent, says how it ended.

A command gate's container has the same without the waiting: its checkout is over when it starts.

The image is somebody else's, so this is POSIX sh (dash, bash, busybox) and needs only `cat` and `sleep` beside it (a
gate: `sleep`). Both are constants: nothing is ever pasted into them. The kubelet rewrites `$(X)` and `$$` in a
container's command, so the scripts have neither; what is in an agent's own command the caller must escape.

Why not `timeout`: it is not in every image, busybox's reports a limit differently from GNU's, and after it had to
kill it returns 137, which looks like the kernel's memory killer. Here the limit is 124, whatever it took.

    exit codes    the agent's own; 124: ended at its limit; 127: the image lacks a program (named in the log);
                  143: the pod was deleted before it began, or it said 0 to that; 0 without a run: the runner said stop
"""

from __future__ import annotations

from collections.abc import Sequence

from workitems.protocol import ALIVE_FIFO, EXCHANGE, GO_FILE, LOG_FIFO, OUTPUT_FIFO, PROMPT_FILE, STOP_FILE

TIMED_OUT = 124
MISSING = 127
LOG_SECONDS = 15
"""How long the last lines may take to come back from the runner."""

LACKS_SLEEP = "workitem: the image lacks: sleep"
"""All that a gate's image says which cannot be held to a time limit."""

_WAIT = f"""\
limit=$1 exchange=$2 input=$2/{PROMPT_FILE}
shift 2
say() {{ printf 'workitem: %s\\n' "$*" >&2; }}
trap 'exit 143' TERM

missing=
for tool in cat sleep; do
  command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done

# Most runners need less than a second; a first fetch may take minutes.
pause=0.02 waited=
until [ -e "$exchange/{GO_FILE}" ] || [ -e "$exchange/{STOP_FILE}" ]; do
  [ -n "$missing" ] || sleep "$pause" 2>/dev/null || sleep 1
  if [ ${{#waited}} -lt 50 ]; then waited=$waited.; else pause=0.1; fi
done
if [ -n "$missing" ]; then
  say "the image lacks:$missing"
  [ -e "$exchange/{STOP_FILE}" ] || {{ exec 9>"$exchange/{ALIVE_FIFO}"; printf h >&9; }}
  exit {MISSING}
fi
if [ -e "$exchange/{STOP_FILE}" ]; then
  say "not started:"
  cat "$exchange/{STOP_FILE}" >&2
  exit 0
fi

# Held open until this process is gone, however it ends: the runner reads its end of file.
exec 9>"$exchange/{ALIVE_FIFO}"
printf h >&9
"""

_GATE = f"""\
limit=$1 input=/dev/null exchange=/dev/null
shift
say() {{ printf 'workitem: %s\\n' "$*" >&2; }}
trap 'exit 143' TERM
if ! command -v sleep >/dev/null 2>&1; then
  echo '{LACKS_SLEEP}' >&2
  exit {MISSING}
fi
"""

_LIMITED = f"""
# A background process of a shell ignores SIGINT, and so would every program that the agent tests.
if env --default-signal=INT,QUIT true 2>/dev/null; then
  set -- env --default-signal=INT,QUIT "$@"
fi

limited= interrupted= agent= deleted=
trap 'interrupted=1 deleted=1; [ -z "$agent" ] || kill -TERM "$agent" 2>/dev/null' TERM
trap 'interrupted=1 limited=1; kill -TERM "$agent" 2>/dev/null' USR1

# Where the runner reads the output, what a person should see of it comes back.
shown=
if [ -p "$exchange/{OUTPUT_FIFO}" ]; then
  exec 7<"$exchange/{LOG_FIFO}"
  cat <&7 9>&- &
  shown=$!
  exec 7<&- 8>"$exchange/{OUTPUT_FIFO}"
else
  exec 8>&1
fi
"$@" <"$input" >&8 8>&- 9>&- &
agent=$!
exec 8>&-
[ -z "$deleted" ] || kill -TERM "$agent" 2>/dev/null
(
  sleep "$limit"
  kill -USR1 "${{$}}"
  sleep 10
  kill -KILL "$agent"
) </dev/null >/dev/null 2>&1 9>&- &
watch=$!

# A signal ends `wait` before the agent has ended, with a code that says nothing: wait again.
wait "$agent"
code=$?
while [ -n "$interrupted" ]; do
  interrupted=
  wait "$agent"
  again=$?
  [ "$again" = 127 ] || code=$again
done
# KILL, because a shell that has only just been forked may lose any other signal. Its `sleep` ends with the container.
trap '' USR1 TERM
# Who cleans up and says 0 because its pod is being deleted has not done its work.
[ -z "$deleted" ] || [ "$code" != 0 ] || code=143
{{ kill -KILL "$watch"; wait "$watch"; }} 2>/dev/null
if [ -n "$shown" ]; then
  # All of the log, unless something that the agent left behind holds the output open.
  ( sleep {LOG_SECONDS}; kill -KILL "$shown" ) </dev/null >/dev/null 2>&1 9>&- &
  watch=$!
  wait "$shown"
  {{ kill -KILL "$watch"; wait "$watch"; }} 2>/dev/null
fi
if [ -n "$limited" ]; then
  say "ended at its limit of $limit seconds"
  exit {TIMED_OUT}
fi
exit "$code"
"""

ENTRY = _WAIT + _LIMITED
GATE = _GATE + _LIMITED


def argv(command: Sequence[str], timeout_seconds: int, exchange: str = EXCHANGE) -> list[str]:
    """The container's command: `command` with the prompt on its input, ended after so many seconds."""
    return ["/bin/sh", "-c", ENTRY, "agent", str(timeout_seconds), exchange, *command]


def gate_argv(command: Sequence[str], timeout_seconds: int) -> list[str]:
    """The container's command of a gate: `command` without input, ended after so many seconds."""
    return ["/bin/sh", "-c", GATE, "gate", str(timeout_seconds), *command]
