"""Other channels by apprise (https://github.com/caronc/apprise): the optional extra `workitem-operator[apprise]`.

apprise is synchronous and says no more than whether a message was sent: it runs in a thread, gets plain text, and a
message that it did not send is not repeated, because nobody can tell how much of it arrived. Its log is off (`log.py`):
it repeats addresses, which are credentials.
"""

from __future__ import annotations

import asyncio
from typing import Any, Self

from workitems import errors
from workitems.integrations.html_parts import parts, plain

MESSAGE_UNITS = 2000
"""Readable on every service that apprise knows; it cuts silently itself where one takes less."""


class AppriseChannel:
    """One apprise address."""

    def __init__(self, address: str) -> None:
        """Take the address, which is a credential. It blocks: see `opened`.

        Raises errors.Permanent without the extra, and for a wrong address.
        """
        try:
            import apprise  # noqa: PLC0415 - an optional extra
        except ImportError:
            message = (
                "the operator's image lacks apprise, which is an optional extra: build it with "
                "`--build-arg EXTRAS=apprise` (docs/notifications.md) and install that"
            )
            raise errors.Permanent("AppriseMissing", message) from None
        self._apprise: Any = apprise.Apprise()
        if not self._apprise.add(address):
            message = "the notifier's Secret holds no address that apprise understands (it is not shown here)"
            raise errors.Permanent("AppriseAddressInvalid", message)
        self._format = apprise.NotifyFormat.TEXT

    @classmethod
    async def opened(cls, address: str) -> Self:
        """One for this address, made in a thread: the first one loads all of apprise's services, for half a second."""
        return await asyncio.to_thread(cls, address)

    async def send(self, html: str) -> str:
        """Send one message as text, in parts where it is too long. Raises errors.Permanent."""
        for piece in parts(html, MESSAGE_UNITS):
            sent = await asyncio.to_thread(self._apprise.notify, body=plain(piece), body_format=self._format)
            if not sent:
                message = "apprise did not send the message; `apprise -vv` with the notifier's address shows why"
                raise errors.Permanent("NotSent", message)
        return ""
