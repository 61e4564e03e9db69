"""A chat of the Telegram Bot API: messages in HTML, in parts where they are long, never twice.

The token stands in every address, so it is hidden from errors and logs. The API knows no key by which a repetition
could be told: a message whose request got no answer may have been sent, and is not sent again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from workitems import errors
from workitems.integrations import http
from workitems.integrations.html_parts import parts, plain

MESSAGE_UNITS = 4096
MOST_PARTS = 8
"""Of one message; a longer one is cut, and says so."""
WAIT_SECONDS = 60.0
"""The longest `retry_after` that is waited for between two parts of one message."""
NEXT_ATTEMPTS = 3
CUT = "\n…"


class TelegramChat:
    """One chat, written to by one bot."""

    def __init__(
        self,
        client: http.Client,
        chat: tuple[str, int | None],
        token: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take a client for the API's server, the chat and its topic, the bot's token, how to wait."""
        self._client = client
        self._chat, self._thread = chat
        self._path = f"/bot{quote(token, safe=':')}/sendMessage"
        self._sleep = sleep

    async def send(self, html: str) -> str:
        """Send one message, in parts where it is too long; the ids of its parts.

        Raises errors.Transient only if nothing of it was sent, errors.Unanswered if that is not known, and
        errors.Permanent where it never will be.
        """
        pieces = parts(html, MESSAGE_UNITS)
        if len(pieces) > MOST_PARTS:
            pieces = (*pieces[:MOST_PARTS], CUT)
        sent = [await self._send_part(piece) for piece in pieces[:1]]
        for piece in pieces[1:]:
            try:
                sent.append(await self._send_next(piece))
            except errors.WorkItemsError as error:
                message = f"{len(sent)} of {len(pieces)} parts were sent, and then: {error}"
                raise errors.Permanent("PartlySent", message) from error
        return ",".join(sent)

    async def _send_next(self, piece: str) -> str:
        """A part after the first: worth waiting for, because what was sent cannot be taken back."""
        for _ in range(NEXT_ATTEMPTS - 1):
            try:
                return await self._send_part(piece)
            except errors.Unanswered:
                raise
            except errors.Transient as error:
                if (error.delay_seconds or 0.0) > WAIT_SECONDS:
                    raise
                await self._sleep(error.delay_seconds or 1.0)
        return await self._send_part(piece)

    async def _send_part(self, piece: str) -> str:
        answer = await self._post(piece)
        if answer.code == 400 and "can't parse entities" in _description(answer):
            # Somebody's own template: what it says matters more than how it looks.
            answer = await self._post(plain(piece), formatted=False)
        if not answer.good:
            raise _refusal(answer)
        result = _body(answer).get("result")
        if not isinstance(result, dict) or "message_id" not in result:
            # A 200 of something between us and Telegram, which names every message that it has taken.
            raise errors.Unanswered(f"{answer.what}: the answer names no message: is this Telegram's address?")
        return str(result["message_id"])

    async def _post(self, piece: str, *, formatted: bool = True) -> http.Answer:
        body: dict[str, Any] = {"chat_id": self._chat, "text": piece, "link_preview_options": {"is_disabled": True}}
        if formatted:
            body["parse_mode"] = "HTML"
        if self._thread is not None:
            body["message_thread_id"] = self._thread
        return await self._client.request("POST", self._path, body=body)


def _body(answer: http.Answer) -> dict[str, Any]:
    try:
        body = answer.json()
    except errors.Transient:
        return {}
    return body if isinstance(body, dict) else {}


def _description(answer: http.Answer) -> str:
    return answer.quoted(str(_body(answer).get("description") or ""))


def silence(code: int, headers: Mapping[str, str], content: bytes) -> float | None:
    """The seconds that a 429 asks to wait, from its body or its headers; None: the answer is no 429."""
    if code != 429:
        return None
    try:
        seconds = json.loads(content)["parameters"]["retry_after"]
    except (ValueError, KeyError, TypeError):
        seconds = None
    return float(seconds) if isinstance(seconds, int | float) else http.retry_after_seconds(headers) or 5.0


def _refusal(answer: http.Answer) -> errors.Permanent:
    said = _description(answer) or f"it answered {answer.code}"
    moved = (_body(answer).get("parameters") or {}).get("migrate_to_chat_id")
    if moved is not None:
        return errors.Permanent("ChatMoved", f"the chat has become a supergroup: write chatId: {str(moved)!r} ({said})")
    if answer.code in (401, 404):
        message = f"Telegram does not know the bot: check the token in the Secret that the notifier names ({said})"
        return errors.Permanent("TokenRefused", message)
    if answer.code == 403:
        return errors.Permanent("ChatRefused", f"the bot may not write to the chat: add it to the chat again ({said})")
    if "chat not found" in said:
        message = f"there is no such chat for this bot: check chatId, and add the bot to the chat ({said})"
        return errors.Permanent("ChatNotFound", message)
    return errors.Permanent("MessageRefused", f"Telegram refuses the message: {said}")
