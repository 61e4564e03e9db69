"""HTTP to servers of other people: late, broken, lying about sizes, and never to be told a token twice.

One connection pool serves all clients of one server (`Connections`); a `Client` is what one Repository may do there. It
answers with whatever the server decided (2xx, 3xx, 4xx), because only the product behind it knows what its codes mean,
and raises errors.Transient for what waiting may mend: no answer, 408, 425, 429, 5xx, after a few attempts of its own.

What may be repeated is repeated: GET, HEAD, PUT and DELETE always; every other method only where the server surely did
not carry it out (no connection came about, or 429). Otherwise errors.Unanswered says that nobody knows: look first.

No token leaves in a sentence, a log line or a repr: headers are kept out of them, and a token in a path (Telegram's) is
named in `hidden` and replaced.
"""

from __future__ import annotations

import asyncio
import collections
import email.utils
import hashlib
import http.cookiejar
import json
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

import workitems
from workitems import errors

ATTEMPTS = 4
BASE_SECONDS = 0.5
"""The wait before the second attempt; it doubles."""
PATIENCE_SECONDS = 5.0
"""A longer Retry-After is not waited for here: it goes to the caller, who has other things to do meanwhile."""
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
WHOLE_SECONDS = 60.0
"""One attempt, the answer's last byte included: a server that sends a byte now and then holds nobody up."""
ANSWER_LIMIT = 8 * 1024 * 1024
"""Bytes of one answer, unpacked."""
MESSAGE_LIMIT = 300
CONNECTIONS_A_SERVER = 8
SERVERS_KEPT = 32

REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_LATER = frozenset({408, 425, 429})
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)

Sleep = Callable[[float], Awaitable[None]]
Query = Mapping[str, str | int]


@dataclass(frozen=True)
class Access:
    """One server, and what shows who is asking."""

    base_url: str
    """With the path that the server's API is below, without a trailing slash."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    hidden: tuple[str, ...] = field(default=(), repr=False)
    """What must never be read in a sentence or a log: tokens, in every form in which they are sent."""
    ca_pem: str = field(default="", repr=False)
    """Certificates that are trusted in addition to the machine's."""


@dataclass(frozen=True)
class Answer:
    """What a server decided: any code below 500 but those that say "later"."""

    what: str
    """The question, for sentences: `GET https://git.example.com/api/v1/…`, nothing hidden in it."""
    code: int
    headers: httpx.Headers = field(repr=False)
    content: bytes = field(repr=False)
    hidden: tuple[str, ...] = field(default=(), repr=False)
    """As in `Access`."""

    @property
    def good(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.code < 300

    def json(self) -> Any:
        """The body. Raises errors.Transient if it is no JSON: something between us and the server answered."""
        try:
            return json.loads(self.content)
        except ValueError:
            size = len(self.content)
            message = f"{self.what}: the answer {self.code} ({size} bytes) is no JSON: is this the server's address?"
            raise errors.Transient(message) from None

    @property
    def message(self) -> str:
        """What the server says about it, cut; only from JSON: a foreign page is not quoted."""
        try:
            body = json.loads(self.content)
        except ValueError:
            return ""
        words = body.get("message") or body.get("error") or body.get("detail") if isinstance(body, dict) else None
        return self.quoted(str(words or ""))

    def quoted(self, words: str) -> str:
        """Words of the body as they may be repeated: a proxy may send the request's own headers back in a refusal."""
        return _cut(_masked(words, self.hidden))


class Connections:
    """The pools of connections of this process, one a server and set of trusted certificates."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Take a transport that stands in for the network, in tests."""
        self._transport = transport
        self._pools: collections.OrderedDict[tuple[str, str], httpx.AsyncClient] = collections.OrderedDict()
        self._busy: collections.Counter[tuple[str, str]] = collections.Counter()

    async def close(self) -> None:
        """Close all of them."""
        pools = tuple(self._pools.values())
        self._pools.clear()
        for pool in pools:
            await pool.aclose()

    async def send(self, access: Access, method: str, url: str, **arguments: Any) -> tuple[int, httpx.Headers, bytes]:
        """One attempt: code, headers, body. Raises httpx.TransportError, TimeoutError, errors.Permanent (too large)."""
        key = (access.base_url, hashlib.sha256(access.ca_pem.encode()).hexdigest())
        self._busy[key] += 1
        try:
            pool = await self._pool(key, access)
            async with (
                asyncio.timeout(WHOLE_SECONDS),
                pool.stream(method, url, headers=dict(access.headers), **arguments) as response,
            ):
                return response.status_code, response.headers, await _body(response)
        finally:
            self._busy[key] -= 1
            if not self._busy[key]:
                del self._busy[key]

    async def _pool(self, key: tuple[str, str], access: Access) -> httpx.AsyncClient:
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = httpx.AsyncClient(
                transport=self._transport,
                verify=_trust(access),
                timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=CONNECTIONS_A_SERVER, max_keepalive_connections=2),
                # A redirect would carry the token to whoever is named in it.
                follow_redirects=False,
                # One jar would carry one Repository's session into the requests of another.
                cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=())),
                headers={"User-Agent": f"workitem-operator/{workitems.__version__}", "Accept": "application/json"},
            )
        self._pools.move_to_end(key)
        surplus = max(len(self._pools) - SERVERS_KEPT, 0)
        for idle in [other for other in self._pools if other not in self._busy and other != key][:surplus]:
            await self._pools.pop(idle).aclose()
        return pool


class Client:
    """Requests to one server with one credential."""

    def __init__(
        self,
        connections: Connections,
        access: Access,
        *,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Take the process's connections, the server and credential, how to wait, and numbers in [0, 1)."""
        self._connections = connections
        self._access = access
        self._sleep = sleep
        self._jitter = jitter

    def __repr__(self) -> str:
        return f"Client({self._access.base_url})"

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._access.base_url

    async def request(
        self, method: str, path: str, *, params: Query | None = None, body: Any = None, repeat: bool | None = None
    ) -> Answer:
        """The server's decision about `path` (quoted, with a leading slash); `body` is sent as JSON.

        `repeat` says that carrying it out twice is the same as once; None: as the method says. Raises errors.Transient,
        its kind errors.Unanswered, and errors.Permanent for an answer that is too large.
        """
        repeatable = method in REPEATABLE if repeat is None else repeat
        what = self._shown(f"{method} {self._access.base_url}{path}")
        arguments: dict[str, Any] = {"params": dict(params or {})}
        if body is not None:
            arguments["json"] = body
        attempt = 1
        while True:
            failure, again = None, repeatable
            try:
                code, headers, content = await self._connections.send(
                    self._access, method, f"{self._access.base_url}{path}", **arguments
                )
            except (httpx.TransportError, httpx.DecodingError, TimeoutError, OSError) as error:
                again = repeatable or isinstance(error, _NOT_SENT)
                failure = _unanswered(again, f"{what}: {_cause(error, self._shown(str(error)))}", error)
            else:
                if code < 500 and code not in _LATER:
                    return Answer(what, code, headers, content, self._access.hidden)
                again = repeatable or code == 429
                said = Answer(what, code, headers, content, self._access.hidden).message
                failure = _late(again, f"{what}: it answered {code}{f': {said}' if said else ''}", headers)
            delay = failure.delay_seconds
            if not again or attempt == ATTEMPTS or (delay or 0.0) > PATIENCE_SECONDS:
                raise failure
            backoff = BASE_SECONDS * 2 ** (attempt - 1) * (0.5 + 0.5 * self._jitter())
            await self._sleep(max(delay or 0.0, backoff))
            attempt += 1

    def _shown(self, text: str) -> str:
        return _masked(text, self._access.hidden)


def _masked(text: str, hidden: tuple[str, ...]) -> str:
    for secret in hidden:
        for form in {secret, quote(secret, safe="")} - {""}:
            text = text.replace(form, "***")
    return text


def _cut(text: str) -> str:
    """On one line; after the masking, which would not find half a token."""
    return " ".join(text.split())[:MESSAGE_LIMIT]


def _trust(access: Access) -> ssl.SSLContext | bool:
    if not access.base_url.startswith("https:"):
        # There is nothing to verify, and reading the machine's certificates takes a tenth of a second.
        return False
    context = ssl.create_default_context()
    if access.ca_pem:
        try:
            context.load_verify_locations(cadata=access.ca_pem)
        except (ssl.SSLError, ValueError):
            # Not chained: what is in it is not ours to show.
            message = f"the certificates for {access.base_url} are no PEM: mend the ConfigMap that caBundle names"
            raise errors.Permanent("CABundleInvalid", message) from None
    return context


async def _body(response: httpx.Response) -> bytes:
    size, parts = 0, []
    async for part in response.aiter_bytes():
        size += len(part)
        if size > ANSWER_LIMIT:
            where = f"{response.request.method} {response.url.copy_with(path='', query=None)}"
            message = f"{where}: the answer has more than {ANSWER_LIMIT} bytes and was not read"
            raise errors.Permanent("AnswerTooLarge", message)
        parts.append(part)
    return b"".join(parts)


def _unanswered(harmless: bool, sentence: str, error: BaseException) -> errors.Transient:  # noqa: FBT001 - private
    failure = errors.Transient(sentence) if harmless else errors.Unanswered(sentence)
    # Not chained as the cause: a traceback in a log would show httpx's own request, headers and all.
    failure.add_note(f"{type(error).__name__}")
    return failure


def _late(harmless: bool, sentence: str, headers: httpx.Headers) -> errors.Transient:  # noqa: FBT001 - private
    delay = retry_after_seconds(headers)
    kind = errors.Transient if harmless else errors.Unanswered
    return kind(sentence, delay_seconds=delay)


def _cause(error: BaseException, words: str) -> str:
    """Why there is no answer, in words: httpx says nothing at all for some of its errors."""
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:.0f} s: is the server up, and may the operator reach it?"
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return "no answer in time"
    said = _cut(words)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return f"its certificate is not trusted: put its CA into the ConfigMap that caBundle names ({said})"
    if isinstance(error, httpx.ConnectError):
        return f"no connection: {said or 'refused'}; is the server up, and may the operator reach it?"
    return f"no answer: {said or type(error).__name__}"


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """What Retry-After asks for, in seconds or as a date; None if it says nothing that can be understood.

    A date is by the server's clock, and so is the answer's own, if it has one; `now` is for one that has none.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal() and len(text) < 8:
        return float(text)
    moment = _date(text)
    if moment is None:
        return None
    return max((moment - (_date(headers.get("Date", "")) or now or datetime.now(UTC))).total_seconds(), 0.0)


def _date(text: str) -> datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
