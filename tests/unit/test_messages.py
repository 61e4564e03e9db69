"""Templates: both languages complete and escaped, a team's own ones, and broken ones that say so."""

from __future__ import annotations

import asyncio
import re
import subprocess
from typing import Any, get_args

import pytest

from tests.standins.telegram import read
from workitems import messages
from workitems.api import RunResult
from workitems.api.decision import Action
from workitems.integrations.html_parts import plain
from workitems.messages import Own, Subject, apart

SUBJECT = Subject(
    name="et-12",
    namespace="team-a",
    title="Codes <b>& co",
    url="https://plane.example.com/ET-12",
    files_url="https://git.example.com/shop/web/src/commit",
    commits_url="https://git.example.com/shop/web/commit",
)
COMMIT = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
HOSTILE = "<script>alert(1)</script> {{ 777 * 1001 }} & 'x'"
WORDS: dict[str, object] = {name: HOSTILE for name in messages.WORDS if name not in ("documents", "seconds")}
WORDS |= {"commit": COMMIT, "seconds": "75", "documents": ("docs/a b.md", "docs/<c>.md"), "approvers": (HOSTILE,)}


@pytest.mark.parametrize("language", messages.LANGUAGES)
@pytest.mark.parametrize("key", messages.keys())
def test_every_template_escapes_what_it_is_given(key: str, language: str) -> None:
    text, problem = messages.render(key, WORDS, SUBJECT, language=language)
    assert problem is None
    assert "<script" not in text
    assert "777777" not in text
    assert "Codes <b>&" not in text
    if key.startswith("message."):
        assert read(text)[1] == ""


@pytest.mark.parametrize("language", messages.LANGUAGES)
@pytest.mark.parametrize("key", messages.keys())
def test_every_template_reads_without_words_that_are_not_known(key: str, language: str) -> None:
    text, problem = messages.render(key, {}, SUBJECT, language=language)
    assert text
    assert problem is None


def test_both_languages_have_the_same_templates() -> None:
    english, russian = messages._built_in("en"), messages._built_in("ru")
    for kind in ("comment", "message"):
        assert english[kind].keys() == russian[kind].keys()
    for key in messages.keys():  # noqa: SIM118 - a function
        kind, _, event = key.partition(".")
        used = [set(re.findall(r"\b(?:{{|if|for \w+ in) (\w+)", texts[kind][event])) for texts in (english, russian)]
        assert used[0] == used[1], key


def test_documents_are_links_at_the_commit() -> None:
    text, _ = messages.render("comment.ApprovalWanted", WORDS, SUBJECT)
    assert f'<a href="https://git.example.com/shop/web/src/commit/{COMMIT}/docs/a%20b.md">docs/a b.md</a>' in text


def test_without_a_forge_a_document_is_its_path() -> None:
    text, _ = messages.render("comment.ApprovalWanted", WORDS, Subject("et-12", "team-a", "T"))
    assert "<li><code>docs/a b.md</code></li>" in text


def test_questions_are_markdown_whose_html_is_text() -> None:
    words = {"text": "# Questions\n\n1. Which <b>price</b>?\n2. [x](javascript:alert(1))\n", "stage": "analysis"}
    text, _ = messages.render("comment.QuestionsAsked", words, SUBJECT)
    assert "<h1>Questions</h1>" in text
    assert "<li>Which &lt;b&gt;price&lt;/b&gt;?</li>" in text
    assert "href" not in text


def test_a_template_of_ones_own_comes_first() -> None:
    own = Own("texts", {"message.Done": "{{ item.name }} ist fertig: {{ message }}"})
    text, problem = messages.render("message.Done", {"message": "a < b"}, SUBJECT, own=own)
    assert (text, problem) == ("et-12 ist fertig: a &lt; b", None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{% if %}", "line 1: TemplateSyntaxError"),
        ("{{ nothing_of_this_name }}", "UndefinedError: &#39;nothing_of_this_name&#39; is undefined"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{% for a in range(90000) %}{{ a }} {% endfor %}", "it makes more than 262144 characters"),
        ("{% for a in range(99999999) %}{% endfor %}", "OverflowError"),
        ("  ", "it makes an empty text"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
    ],
)
@pytest.mark.parametrize("kind", ["comment", "message"])
def test_a_broken_one_falls_back_and_says_so(kind: str, template: str, problem: str) -> None:
    key = f"{kind}.Done"
    text, found = messages.render(key, {"message": "all fine"}, SUBJECT, own=Own("texts", {key: template}))
    assert found is not None
    assert "all fine" in text
    assert f"The template {key} of ConfigMap texts cannot be used: {problem}" in text
    assert text.endswith(("</em></p>", "</i>"))
    in_russian, _ = messages.render(key, {}, SUBJECT, language="ru", own=Own("texts", {key: template}))
    assert f"Шаблон {key} из ConfigMap texts непригоден" in in_russian


@pytest.mark.parametrize(
    ("template", "seconds", "problem"),
    [
        # The processor's time counts from the child's start, which is not what these are about.
        ("{{ 'x' * 2000000000 }}", 60, "MemoryError"),
        ("{{ (['x'] * 500000000) | length }}", 60, "MemoryError"),
        ("{{ 'x' | center(2000000000) | length }}", 60, "MemoryError"),
        (
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ '' }}{% endfor %}{% endfor %}",
            1,
            "it needs more than 1 s of processor time or 128 MiB of memory",
        ),
    ],
)
@pytest.mark.slow
async def test_one_that_would_eat_the_operator_up_ends_apart_from_it(
    template: str, seconds: int, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "PROCESSOR_SECONDS", seconds)
    own, turns = Own("texts", {"message.Done": template}), 0
    made = asyncio.ensure_future(messages.rendered("message.Done", {"message": "all fine"}, SUBJECT, own=own))
    while not made.done():
        await asyncio.sleep(0.01)
        turns += 1
    text, found = await made
    assert found == problem
    assert "all fine" in text
    assert f"of ConfigMap texts cannot be used: {problem}" in text
    # Everybody else goes on meanwhile.
    assert turns > 1


def test_what_renders_it_has_nothing_of_the_operators_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    real = subprocess.run

    def run(*arguments: Any, **words: Any) -> Any:
        seen.update(words)
        return real(*arguments, **words)

    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(subprocess, "run", run)
    own = Own("texts", {"message.Done": "{{ message }}"})
    assert messages.render("message.Done", {"message": "x"}, SUBJECT, own=own) == ("x", None)
    assert set(seen["env"]) == {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}


def test_a_long_document_is_told_whole() -> None:
    questions = "".join(f"{number}. Which price does case {number} have?\n" for number in range(1, 1200))
    assert len(questions) > 40_000
    text, problem = messages.render("comment.QuestionsAsked", {"text": questions, "file": "q.md"}, SUBJECT)
    assert problem is None
    assert "Which price does case 1199 have?" in text
    assert "only the beginning" not in text


@pytest.mark.slow
def test_one_that_has_no_room_is_cut_and_says_so() -> None:
    table = "|a|b|\n|-|-|\n" + "|\n" * 20_000
    text, problem = messages.render("comment.QuestionsAsked", {"text": table, "file": "q.md"}, SUBJECT)
    assert problem is None
    assert 50_000 < len(text) <= messages.TEXT_LIMIT
    assert "<p>This is only the beginning. The document: <code>q.md</code></p>" in text


REFUSALS = {
    "Stranger": (
        "Не засчитано (согласование, olga@example.com): этот человек не решает о et-12. Согласуют: lead@x.com."
    ),
    "Edited": (
        "Не засчитано (согласование, olga@example.com): комментарий изменил после написания кто-то другой. "
        "Напишите, пожалуйста, новый."
    ),
    "Unreadable": (
        "Этот комментарий от olga@example.com не засчитан: его нельзя прочитать. "
        "Напишите, пожалуйста, ещё раз, простыми словами."
    ),
    "Ambiguous": (
        "Этот комментарий от olga@example.com не засчитан: в нём и :approved:, и :rejected:. "
        "Напишите, пожалуйста, новый."
    ),
    "ReasonMissing": (
        "Этот отказ от olga@example.com пока не засчитан: назовите причину в том же комментарии, например "
        ":rejected: нет случая возврата."
    ),
    "OlderRequest": (
        "Не засчитано (согласование, olga@example.com): это сказано до запроса согласования или о прежней версии. "
        "Прочитайте последний запрос и ответьте ещё раз."
    ),
}


@pytest.mark.parametrize("event", REFUSALS)
def test_refusals_in_russian(event: str) -> None:
    words = {"action": "approval", "by": "olga@example.com", "editor": "somebody else", "approvers": ("lead@x.com",)}
    text, _ = messages.render(f"comment.{event}", words, SUBJECT, language="ru")
    assert " ".join(plain(text).split()) == REFUSALS[event]


@pytest.mark.parametrize("action", get_args(Action))
def test_every_decision_has_its_russian_word(action: str) -> None:
    words = {"action": action, "by": "olga@example.com", "message": "x"}
    text, _ = messages.render("comment.DecisionRefused", words, SUBJECT, language="ru")
    assert re.fullmatch(r"<p><strong>Не засчитано \([а-я]+, olga@example.com\):</strong> x.</p>", text)


@pytest.mark.parametrize("result", RunResult)
def test_a_run_in_russian(result: RunResult) -> None:
    words = {"run": "3", "agent": "coder", "stage": "build", "result": str(result), "seconds": "75", "cost": "0.02"}
    text, _ = messages.render("message.RunFinished", words, SUBJECT, language="ru")
    assert re.search(r"Запуск 3 \(coder, стадия build\): <b>[а-я ]+</b>, 1 мин 15 с, 0.02 USD$", text)


def test_an_approval_in_russian() -> None:
    words = {
        **WORDS,
        "stage": "analysis",
        "gate": "approved",
        "command": "kubectl create",
        "approvers": ("lead@x.com",),
    }
    text, _ = messages.render("comment.ApprovalWanted", {**words, "approved_state": "Готово"}, SUBJECT, language="ru")
    assert " ".join(plain(text).split()) == (
        f"Стадия analysis готова и ждёт согласования (проверка approved, коммит {COMMIT[:12]}). Прочитайте, "
        "пожалуйста: docs/a b.mddocs/<c>.md Чтобы согласовать, напишите комментарий :approved: или переведите задачу "
        "в «Готово». Чтобы вернуть, напишите :rejected: и причину. Согласуют: lead@x.com. Из командной строки, с вашим "
        "именем вместо YOU: kubectl create"
    )


@pytest.mark.parametrize(("seconds", "text"), [("0", "0s"), ("59", "59s"), ("75", "1m 15s"), ("7322", "2h 2m")])
def test_durations_are_read_at_a_glance(seconds: str, text: str) -> None:
    said, _ = messages.render("message.RunFinished", {"seconds": seconds}, SUBJECT)
    assert f"after {text}" in said
