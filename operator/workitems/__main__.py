"""The one entry point: `operate` (the operator), `runner` (inside a Job), `crds` (generate the CRDs' manifests)."""

from __future__ import annotations

import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run one of the three; the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["runner"]:
        # Imported here: a runner starts for every run, and the operator's libraries would double its start.
        from workitems import runner  # noqa: PLC0415

        return runner.main(arguments[1:])
    import argparse  # noqa: PLC0415 - a runner has no use for it

    parser = argparse.ArgumentParser(prog="workitems", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("operate", help="run the operator; configured by WORKITEMS_* variables")
    crds = commands.add_parser("crds", help="write the CRDs' manifests into a folder")
    crds.add_argument("folder", nargs="?", default="crds", type=Path)
    chosen = parser.parse_args(arguments)
    if chosen.command == "crds":
        from workitems import crd  # noqa: PLC0415

        crd.write(chosen.folder)
        return 0
    return _operate()


def _operate() -> int:
    import gc  # noqa: PLC0415

    import uvloop  # noqa: PLC0415

    from workitems import errors, log, operate, settings  # noqa: PLC0415

    try:
        chosen = settings.load()
        log.configure(chosen)
        # Every answer and event is a tree of dicts without cycles. To look for cycles every 700 of them, and now and
        # then in the libraries' classes too, cost 5 % of the operator's time (bench/README.md).
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        uvloop.run(operate.operate(chosen))
    except errors.Permanent as error:
        sys.stderr.write(f"workitem-operator cannot run: {error.reason}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
