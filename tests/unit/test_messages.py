"""Templates: both languages complete and escaped, a team's own ones, and broken ones that say so."""

from __future__ import annotations

import re

import pytest

from tests.standins.telegram import read
from workitems import messages
from workitems.messages import Own, Subject

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


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{% if %}", "line 1: TemplateSyntaxError"),
        ("{{ nothing_of_this_name }}", "UndefinedError: &#39;nothing_of_this_name&#39; is undefined"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{% for a in range(90000) %}{{ a }} {% endfor %}", "it makes more than 65536 characters"),
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


@pytest.mark.parametrize(("seconds", "text"), [("0", "0s"), ("59", "59s"), ("75", "1m 15s"), ("7322", "2h 2m")])
def test_durations_are_read_at_a_glance(seconds: str, text: str) -> None:
    said, _ = messages.render("message.RunFinished", {"seconds": seconds}, SUBJECT)
    assert f"after {text}" in said
