"""Plane, against a stand-in that refuses what its source refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.standins.plane import BOT_KEY, Plane
from workitems import errors
from workitems.integrations import http, plane
from workitems.integrations.pace import Pace, Paced

START = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)


class Clock:
    """Moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def server(clock: Clock) -> AsyncIterator[Plane]:
    async with Plane(clock.now) as standin:
        yield standin


class Projects:
    """Makes clients that share one pace."""

    def __init__(self, server: Plane, clock: Clock, connections: http.Connections) -> None:
        self.server, self.clock, self.connections = server, clock, connections
        self.pace = Pace(
            "plane",
            (plane.REQUESTS_A_MINUTE, plane.WINDOW_SECONDS),
            kept=30,
            monotonic=clock.monotonic,
            sleep=clock.sleep,
        )

    def project(self, key: str = BOT_KEY, workspace: str = "shop", project: str | None = None) -> plane.PlaneProject:
        access = http.Access(self.server.url, headers={"X-Api-Key": key}, hidden=(key,))
        paced = Paced(self.connections, plane.silence, self.pace)
        client = http.Client(paced, access, sleep=self.clock.sleep, jitter=lambda: 1.0)
        return plane.PlaneProject(client, workspace, project or self.server.project, self.clock.monotonic)


@pytest.fixture
async def projects(server: Plane, clock: Clock) -> AsyncIterator[Projects]:
    connections = http.Connections()
    yield Projects(server, clock, connections)
    await connections.close()


async def test_an_issue_is_moved_by_the_names_or_ids_of_states(server: Plane, projects: Projects) -> None:
    issue, project = server.issue("One"), projects.project()
    await project.set_state(issue, "In Progress")
    await project.set_state(issue, "in review")
    await project.set_state(issue, server.state_id("Done"))
    assert server.history(issue) == ["In Progress", "In Review", "Done"]
    await project.set_state(issue, "Done")
    assert server.history(issue) == ["In Progress", "In Review", "Done"]


async def test_a_state_that_is_missing_is_told_with_those_that_exist(server: Plane, projects: Projects) -> None:
    with pytest.raises(errors.Permanent) as caught:
        await projects.project().set_state(server.issue("One"), "Doing")
    assert caught.value.reason == "StateNotFound"
    assert str(caught.value) == (
        "the tracker's project has no state 'Doing'; it has: Backlog, Ready, In Progress, In Review, Needs Input, "
        "Blocked, Approved, Done, Cancelled"
    )


async def test_a_state_that_was_added_since_is_found(server: Plane, projects: Projects, clock: Clock) -> None:
    issue, project = server.issue("One"), projects.project()
    await project.set_state(issue, "Done")
    server.states["new"] = "Doing"
    clock.seconds += 40
    await project.set_state(issue, "Doing")
    assert server.state_of(issue) == "Doing"


async def test_a_comment_is_there_once_however_often_it_is_made(server: Plane, projects: Projects) -> None:
    issue, project = server.issue("One"), projects.project()
    first = await project.comment(issue, "uid/comment-1", "<p>Hello</p>")
    assert await project.comment(issue, "uid/comment-1", "<p>Hello</p>") == first
    assert await project.comment(issue, "uid/comment-2", "<p>Again</p>") != first
    assert server.said(issue) == ["<p>Hello</p>", "<p>Again</p>"]


async def test_a_comment_whose_answer_was_lost_is_found_again(server: Plane, projects: Projects) -> None:
    issue = server.issue("One")
    server.hidden = 2
    await projects.project().comment(issue, "uid/comment-1", "<p>Hello</p>")
    assert server.said(issue) == ["<p>Hello</p>"]


@pytest.mark.parametrize(
    ("key", "workspace", "project", "reason"),
    [
        ("wrong", "shop", None, "TokenRefused"),
        (BOT_KEY, "other", None, "NotFoundInTracker"),
        (BOT_KEY, "shop", "none", "NotFoundInTracker"),
    ],
)
async def test_a_refusal_names_what_to_mend_and_never_the_key(
    server: Plane, projects: Projects, *, key: str, workspace: str, project: str | None, reason: str
) -> None:
    with pytest.raises(errors.Permanent) as caught:
        await projects.project(key, workspace, project).comment(server.issue("One"), "x", "<p>x</p>")
    assert caught.value.reason == reason
    assert key not in str(caught.value)


@pytest.mark.slow
async def test_sixty_requests_a_minute_are_shared_by_all_who_use_the_key(
    server: Plane, projects: Projects, clock: Clock
) -> None:
    issue, both = server.issue("One"), (projects.project(), projects.project())
    for number in range(150):
        await both[number % 2].comment(issue, f"uid/{number}", "<p>x</p>")
    assert len(server.said(issue)) == 150
    assert [str(asked) for asked in server.asked if asked.code == 429] == []
    assert server.most_in_a_minute() <= 60
    assert 120 < clock.seconds < 190


async def test_a_key_that_others_use_too_is_left_alone_as_long_as_plane_says(
    server: Plane, projects: Projects, clock: Clock
) -> None:
    for _ in range(60):
        server._limited(BOT_KEY)
    with pytest.raises(errors.Transient) as caught:
        await projects.project().comment(server.issue("One"), "x", "<p>x</p>")
    assert (caught.value.delay_seconds or 0) > 50
    assert not projects.pace.idle()
    clock.seconds += 61
    assert projects.pace.idle()


async def test_comments_and_moves_come_in_order_over_all_pages(server: Plane, projects: Projects, clock: Clock) -> None:
    lead, issue = server.person("lead"), server.issue("One")
    for number in range(250):
        clock.seconds += 1
        server.say(issue, lead, f"<p>{number}</p>")
    server.move(issue, "Approved", lead)
    project = projects.project()
    comments = await project.comments(issue)
    assert [c.html for c in comments] == [f"<p>{number}</p>" for number in range(250)]
    assert {c.actor for c in comments} == {lead}
    moves = await project.state_changes(issue)
    assert [(m.actor, server.states[m.state]) for m in moves] == [(lead, "Approved")]


async def test_who_touched_a_comment_is_told(server: Plane, projects: Projects) -> None:
    lead, other, issue = server.person("lead"), server.person("other"), server.issue("One")
    plain, own, foreign = (server.say(issue, lead, "<p>x</p>") for _ in range(3))
    server.rewrite(issue, own, lead, "<p>y</p>")
    server.rewrite(issue, foreign, other, "<p>z</p>")
    touched = {c.id: c.touched for c in await projects.project().comments(issue)}
    assert touched == {plain: None, own: "its author", foreign: "somebody else"}


async def test_people_are_known_by_their_address_and_strangers_by_their_id(
    server: Plane, projects: Projects, clock: Clock
) -> None:
    lead, project = server.person("lead"), projects.project()
    assert (await project.member(lead)).called == "lead@example.com"
    late = server.person("late")
    assert (await project.member(late)).called == late
    clock.seconds += 31
    assert (await project.member(late)).called == "late@example.com"


async def test_the_newest_changes_come_first(server: Plane, projects: Projects, clock: Clock) -> None:
    issues = []
    for name in ("One", "Two", "Three"):
        clock.seconds += 1
        issues.append(server.issue(name, html="<p>long</p>"))
    clock.seconds += 1
    server.edit(issues[0], server.bot, name="One again")
    found = [issue async for issue in projects.project().changed_issues()]
    assert [issue.title for issue in found] == ["One again", "Three", "Two"]
    assert found[0].description == ""
    assert (await projects.project().issue(issues[1])) is not None
    assert await projects.project().issue("none") is None


async def test_a_comment_that_arrives_between_two_pages_is_read_once(
    server: Plane, projects: Projects, clock: Clock
) -> None:
    lead, issue = server.person("lead"), server.issue("One")
    for number in range(150):
        clock.seconds += 1
        server.say(issue, lead, f"<p>{number}</p>")

    def arrive() -> None:
        clock.seconds += 1
        server.say(issue, lead, "<p>late</p>")

    server.between_pages = arrive
    read = [comment.html for comment in await projects.project().comments(issue)]
    assert sorted(read) == sorted(f"<p>{number}</p>" for number in range(150))


async def test_a_stranger_s_comment_with_our_external_id_is_not_taken_for_ours(
    server: Plane, projects: Projects
) -> None:
    stranger, issue, other = server.person("stranger"), server.issue("One"), server.issue("Two")
    forged = {"comment_html": "<p>forged</p>", "external_source": plane.SOURCE}
    server._post_comment(issue, {**forged, "external_id": "uid/comment-1"}, stranger)
    server._post_comment(other, {**forged, "external_id": "uid/comment-2"}, stranger)
    project = projects.project()
    first = await project.comment(issue, "uid/comment-1", "<p>Hello</p>")
    assert await project.comment(issue, "uid/comment-1", "<p>Hello</p>") == first
    await project.comment(issue, "uid/comment-2", "<p>Again</p>")
    assert server.said(issue) == ["<p>Hello</p>", "<p>Again</p>"]
    ours = [c for c in await project.comments(issue) if c.says(plane.SOURCE, "uid/comment-1", server.bot)]
    assert [c.id for c in ours] == [first]
    # The answer to the second try is lost as well.
    server._post_comment(issue, {**forged, "external_id": "uid/comment-3"}, stranger)
    server.hidden = 2
    await project.comment(issue, "uid/comment-3", "<p>Once</p>")
    assert server.said(issue)[2:] == ["<p>Once</p>"]


async def test_a_date_or_an_edit_by_the_api_is_noticed(server: Plane, projects: Projects, clock: Clock) -> None:
    lead, issue = server.person("lead"), server.issue("One")
    clock.seconds += 3600
    dates = {"early": START, "late": START + timedelta(days=1), "right": clock.now()}
    for words, date in dates.items():
        server._post_comment(issue, {"comment_html": words, "created_at": date.isoformat()}, lead)
    silent = server.say(issue, lead, "silent")
    clock.seconds += 60
    server._patch_comment(issue, silent, {"comment_html": "silent", "created_at": "2020-01-01"}, lead)
    found = {c.html: c.touched for c in await projects.project().comments(issue)}
    assert found == {"early": "its author", "late": "its author", "right": None, "silent": "its author"}


async def test_what_a_guest_may_not_see_is_no_wrong_token(server: Plane, projects: Projects) -> None:
    server.guests.add(server.bot)
    with pytest.raises(errors.Permanent, match="give the token's user the role Member in the workspace") as caught:
        await projects.project().member("someone")
    assert caught.value.reason == "MembersHidden"


async def test_who_is_in_no_hurry_waits_before_every_request(server: Plane, projects: Projects) -> None:
    waits = 0

    async def wait() -> None:
        nonlocal waits
        waits += 1

    project, issue = projects.project(), server.issue("One")
    await project.names()
    before = len(server.asked)
    unhurried = project.after(wait)
    await unhurried.comments(issue)
    await unhurried.comment(issue, "x", "<p>x</p>")
    await unhurried.set_state(issue, "Done")
    await unhurried.issue(issue)
    assert waits == len(server.asked) - before == 4
    await project.issue(issue)
    assert waits == 4
