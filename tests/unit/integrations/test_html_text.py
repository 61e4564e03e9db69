"""HTML that people and programs put into a tracker, as text: none of it takes long, none of it breaks anything."""

from __future__ import annotations

import contextlib

import pytest

from workitems import errors
from workitems.integrations import html_text
from workitems.integrations.html_text import markdown, spoken


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<style>p {x: '<p>'}</style><SCRIPT>1 < 2</Script ><p>x</p>", "x\n"),
        ("<script>never closed <p>x</p>", ""),
        ("a <!-- not said --> b", "a b\n"),
        ("1 < 2 &amp; 3 &gt; 2 <é", "1 < 2 & 3 > 2 <é\n"),
        ('<a title="1 > 0" href="https://example.com/?a=1&amp;b=2">here</a>', "[here](https://example.com/?a=1&b=2)\n"),
        ('<p>x<img alt="plan" src="data:image/png;base64,AAAA"></p>', "x![plan]()\n"),
        ("<b>never <i>closed", "**never *closed***\n"),
        ("</p></div>x", "x\n"),
    ],
)
def test_a_description_is_read_as_a_browser_shows_it(source: str, text: str) -> None:
    assert markdown(source) == text


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("<p>Good :approved:</p><p>now</p>", "Good :approved:\nnow"),
        ("<blockquote><p>:approved:</blockquote>no", "no"),
        ("<pre><code>:approved:</code></pre>no", "no"),
        ("<!-- :approved: -->no<style>:approved:</style>", "no"),
        ("<blockquote>:approved:", ""),
        ("a&nbsp;:approved:", "a :approved:"),
    ],
)
def test_only_what_is_said_is_heard(source: str, words: str) -> None:
    assert spoken(source) == words


def test_what_is_nested_too_deep_keeps_its_text() -> None:
    deep = 2000
    assert markdown("<div>" * deep + "x" + "</div>" * deep + "y").split() == ["x", "y"]


def test_what_is_too_long_is_cut_and_says_so() -> None:
    found = markdown("<p>word</p>" * 20_000)
    assert found.endswith("\n\n…\n")
    assert len(found) < html_text.TEXT_CHARACTERS
    assert markdown("x" * (html_text.TEXT_CHARACTERS + 1)) == "x" * html_text.TEXT_CHARACTERS + "\n\n…\n"
    assert not markdown("x" * html_text.TEXT_CHARACTERS).endswith("…\n")


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    ["<style>", "<!--", "<a ", '<a x="', "<![CDATA[", "</", "<?", "&#", "<p>", "<li>x</li>", "<blockquote>"],
)
def test_nobody_keeps_the_operator_busy(piece: str) -> None:
    """Each of these took minutes, or all of the stack, in a library: the square of its length, 140 kB of it."""
    source = piece * (1_000_000 // len(piece))
    assert len(markdown(source)) <= 10 * html_text.TEXT_CHARACTERS
    with contextlib.suppress(errors.Permanent):
        assert len(spoken(source)) <= len(source)


def test_what_no_library_reads_is_said_to_be_unreadable() -> None:
    for read in (markdown, spoken):
        with pytest.raises(errors.Permanent, match="cannot be read as HTML") as caught:
            read(f"&#{'9' * 5000};")
        assert caught.value.reason == "TextUnreadable"
