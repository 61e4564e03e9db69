"""Logs that a machine can search and a person can read: one line an event on stdout, ours and the libraries' alike.

kopf, kubernetes and asyncio log through the standard library, we through structlog; both end in one formatter here,
so that every line has the same fields: timestamp, level, logger, event, and what the event is about.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

    from workitems.settings import Settings

LEVELS = {
    # "Handler ... succeeded" for each event of each object: nothing that a reconcile does not say better.
    "kopf.objects": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    # At debug level they print the bodies of answers and plugins, and a Secret is one of them.
    "kubernetes": logging.INFO,
    "kubernetes.aio": logging.INFO,
    "asyncio": logging.INFO,
    # They print every request's address, and one of them (Telegram's) has the token in it.
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    # They too, and apprise repeats an address that it does not understand, with the password in it, as a warning.
    "apprise": logging.CRITICAL,
    "urllib3": logging.ERROR,
}
"""The least level of other people's loggers, whatever the settings say."""

FIRST = ["timestamp", "level", "logger", "event"]


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (default: stdout) in the settings' format, from the settings' level on."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.UnicodeDecoder(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # loggers are made at import time, before this
    )
    render: Processor = structlog.processors.JSONRenderer(default=str) if settings.log_format == "json" else _as_text
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, least in LEVELS.items():
        logging.getLogger(name).setLevel(max(level, least))
    logging.captureWarnings(capture=True)


_pairs = structlog.processors.KeyValueRenderer(key_order=FIRST, drop_missing=True)


def _as_text(logger: WrappedLogger, name: str, event: EventDict) -> str:
    """`key=value` with quoted values, so that no value can forge a line; a traceback follows below it."""
    traceback = event.pop("exception", None)
    line = _pairs(logger, name, event)
    return f"{line}\n{traceback}" if traceback else line
