"""Telegram, against a stand-in that refuses what the Bot API refuses."""

from __future__ import annotations

import html
import logging
from collections.abc import AsyncIterator

import pytest

from tests.standins.telegram import TOKEN, Telegram, read
from workitems import channels, errors, log
from workitems.integrations import http, telegram
from workitems.integrations.html_parts import parts, plain
from workitems.integrations.pace import Pace, Paced

CHAT = "-100200300"


class Bot:
    """Chats of one server; waits are remembered and pass on the clock that only they move."""

    def __init__(self, server: Telegram, connections: http.Connections) -> None:
        self.server = server
        self.connections = connections
        self.slept: list[float] = []
        server.clock = self.monotonic

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def monotonic(self) -> float:
        return sum(self.slept)

    def chat(self, chat: str = CHAT, token: str = TOKEN, thread: int | None = None) -> telegram.TelegramChat:
        limits = (channels.CHAT_LIMIT, channels.GROUP_LIMIT)
        pace = Pace("telegram", *limits, monotonic=self.monotonic, sleep=self.sleep)
        paced = Paced(self.connections, telegram.silence, pace)
        access = http.Access(self.server.url, hidden=(token,))
        client = http.Client(paced, access, sleep=self.sleep, jitter=lambda: 1.0)
        return telegram.TelegramChat(client, (chat, thread), token, self.sleep)


@pytest.fixture
async def server() -> AsyncIterator[Telegram]:
    async with Telegram() as standin:
        yield standin


@pytest.fixture
async def bot(server: Telegram) -> AsyncIterator[Bot]:
    connections = http.Connections()
    yield Bot(server, connections)
    await connections.close()


async def test_a_message_arrives_as_it_is_meant_to_be_read(server: Telegram, bot: Bot) -> None:
    words = 'a < b & "c"'
    said = f"<b>et-12</b> {html.escape(words, quote=False)}"
    assert await bot.chat(thread=7).send(said) == "1"
    assert [(s.chat, s.text, s.html, s.thread) for s in server.sent] == [(CHAT, f"et-12 {words}", said, 7)]


async def test_a_long_message_comes_in_parts_each_well_formed_and_nothing_is_lost(server: Telegram, bot: Bot) -> None:
    lines = "\n".join(f"line {number} with <angles> & ümläuts 🙂" for number in range(400))
    said = f"<b>Findings</b>\n<pre>{html.escape(lines)}</pre>"
    await bot.chat().send(said)
    assert len(server.sent) > 2
    assert "".join(server.texts).split() == f"Findings {lines}".split()
    assert all(sent.html.count("<pre>") == sent.html.count("</pre>") == 1 for sent in server.sent)
    assert server.refusals == []


async def test_what_never_ends_is_cut_and_says_so(server: Telegram, bot: Bot) -> None:
    await bot.chat().send("word " * 20_000)
    assert len(server.sent) == telegram.MOST_PARTS + 1
    assert server.texts[-1].strip() == "…"


async def test_markup_that_telegram_refuses_is_sent_as_text(server: Telegram, bot: Bot) -> None:
    await bot.chat().send("<h1>Title</h1>a &lt; b")
    assert server.refusals == ['Bad Request: can\'t parse entities: Unsupported start tag "h1" at byte offset 0']
    assert server.texts == ["Titlea < b"]


async def test_a_short_retry_after_is_waited_for(server: Telegram, bot: Bot) -> None:
    server.answers = [(429, {"ok": False, "description": "Too Many", "parameters": {"retry_after": 3}})]
    await bot.chat().send("once")
    assert server.texts == ["once"]
    assert sum(bot.slept) >= 3


async def test_a_long_retry_after_goes_to_the_caller_and_nothing_was_sent(server: Telegram, bot: Bot) -> None:
    server.answers = [(429, {"ok": False, "description": "Too Many", "parameters": {"retry_after": 40}})]
    with pytest.raises(errors.Transient) as caught:
        await bot.chat().send("later")
    assert (caught.value.delay_seconds, isinstance(caught.value, errors.Unanswered)) == (40.0, False)
    assert server.sent == []


async def test_after_the_first_part_a_long_retry_after_is_waited_for(server: Telegram, bot: Bot) -> None:
    long = "word " * 1000
    chat = bot.chat()
    first = (200, {"ok": True, "result": {"message_id": 77}})
    server.answers = [first, (429, {"ok": False, "description": "Too Many", "parameters": {"retry_after": 40}})]
    assert (await chat.send(long)).startswith("77,")
    assert sum(bot.slept) >= 40
    assert len(server.sent) == 1


async def test_a_message_without_an_answer_is_not_sent_again(server: Telegram, bot: Bot) -> None:
    server.hidden = 1
    with pytest.raises(errors.Unanswered):
        await bot.chat().send("once")
    assert server.texts == ["once"]


async def test_a_page_that_somebody_else_answers_with_is_no_message(server: Telegram, bot: Bot) -> None:
    server.answers = [(200, {"login": "please"})]
    with pytest.raises(errors.Unanswered, match="names no message"):
        await bot.chat().send("once")
    assert server.texts == []


@pytest.mark.parametrize(
    ("chat", "token", "answers", "reason", "words"),
    [
        (CHAT, "1:wrong", [], "TokenRefused", "check the token in the Secret"),
        ("-5", TOKEN, [], "ChatNotFound", "check chatId"),
        (
            CHAT,
            TOKEN,
            [(403, {"ok": False, "description": "Forbidden: bot was kicked from the group chat"})],
            "ChatRefused",
            "add it to the chat again",
        ),
        (
            CHAT,
            TOKEN,
            [(400, {"ok": False, "description": "upgraded", "parameters": {"migrate_to_chat_id": -1009}})],
            "ChatMoved",
            "write chatId: '-1009'",
        ),
    ],
)
async def test_a_refusal_says_what_to_do(
    server: Telegram, bot: Bot, *, chat: str, token: str, answers: list[object], reason: str, words: str
) -> None:
    server.answers = list(answers)  # type: ignore[arg-type]
    with pytest.raises(errors.Permanent, match=words) as caught:
        await bot.chat(chat, token).send("x")
    assert caught.value.reason == reason


async def test_the_token_is_in_no_error_and_no_log(
    server: Telegram, bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.away = True
    with pytest.raises(errors.Transient) as caught:
        await bot.chat().send("x")
    secret = TOKEN.partition(":")[2]
    assert secret not in str(caught.value)
    assert secret not in repr(bot.chat())
    # httpx logs every address at INFO, and `log.LEVELS` keeps it quiet; aiohttp's line is the stand-in's own.
    ours = [record for record in caplog.records if record.name not in ("httpx", "aiohttp.access")]
    assert all(secret not in record.getMessage() for record in ours)
    assert log.LEVELS["httpx"] == logging.WARNING


@pytest.mark.parametrize(
    "text",
    [
        "<b>" + "x" * 9000 + "</b>",
        "<b><i>" + "🙂" * 5000 + "</i></b> end",
        '<a href="https://example.com/?a=1&amp;b=2">' + "link " * 2000 + "</a>",
        "a<br>b",
        "</b>odd<i>open",
        "&lt;b&gt; is no tag" * 500,
        "",
    ],
)
def test_every_part_is_short_well_formed_and_together_they_say_all(text: str) -> None:
    pieces = parts(text, 4096)
    assert "".join(plain(piece) for piece in pieces).split() == plain(text).split() or "".join(
        plain(piece) for piece in pieces
    ).replace(" ", "") == plain(text).replace(" ", "")
    for piece in pieces:
        said, error = read(piece)
        assert error == ""
        assert 0 < len(said.encode("utf-16-le")) // 2 <= 4096
