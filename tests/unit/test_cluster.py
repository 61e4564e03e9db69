"""Cluster against a real HTTP server: every status code, and what the requests look like."""

import asyncio
import json
import stat
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from workitems import errors, login
from workitems.cluster import JOBS, NAMESPACES, PODS, SECRETS, WORKITEMS, Cluster, Resource
from workitems.settings import Settings

Answer = web.Response | Callable[[web.Request], Any]


@dataclass
class Api:
    """A scripted API server: answers in order, remembers the requests."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.requests.append(
            {
                "method": request.method,
                "path": request.raw_path.partition("?")[0],
                "query": dict(request.query),
                "headers": request.headers,
                "body": json.loads(text) if text else None,
            }
        )
        answer = self.answers.pop(0)
        if isinstance(answer, web.Response):
            return answer
        result: web.StreamResponse = await answer(request)
        return result

    @property
    def last(self) -> dict[str, Any]:
        return self.requests[-1]


def status(code: int, reason: str, message: str = "because", **details: Any) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
    return web.json_response({**body, "code": code, "details": details}, status=code)


def item(name: str = "a", **metadata: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "team", "name": name, **metadata}, "status": {"phase": "Running"}}


def settings(**values: Any) -> Settings:
    return Settings(namespace="workitems", runner_image="runner:1", agent_image="agent:1", **values)


def kubeconfig(folder: Path, url: str, user: dict[str, Any]) -> str:
    path = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "wrong",
        "contexts": [
            {"name": "wrong", "context": {"cluster": "wrong", "user": "person"}},
            {"name": "right", "context": {"cluster": "right", "user": "person"}},
        ],
        "clusters": [
            {"name": "wrong", "cluster": {"server": "http://127.0.0.1:1"}},
            {"name": "right", "cluster": {"server": url}},
        ],
        "users": [{"name": "person", "user": user}],
    }
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    result = Api()
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", result.handle)
    server = TestServer(app)
    await server.start_server()
    result.url = str(server.make_url("")).rstrip("/")
    yield result
    await server.close()


@pytest.fixture
async def cluster(api: Api, tmp_path: Path) -> AsyncIterator[Cluster]:
    path = kubeconfig(tmp_path, api.url, {"token": "sesame"})
    result = await Cluster.connect(settings(kubeconfig=path, context="right", request_timeout_seconds=5))
    yield result
    await result.close()


async def listed(cluster: Cluster, namespace: str | None = "team", **selectors: Any) -> list[str]:
    return [found["metadata"]["name"] async for found in cluster.list(WORKITEMS, namespace, **selectors)]


# --- what the requests look like


async def test_get_reads_one_object_with_the_kubeconfigs_token(api: Api, cluster: Cluster) -> None:
    api.answers = [web.json_response(item())]
    assert await cluster.get(WORKITEMS, "team", "a") == item()
    assert (api.last["method"], api.last["path"]) == ("GET", "/apis/workitems.dev/v1alpha1/namespaces/team/workitems/a")
    assert api.last["headers"]["Authorization"] == "Bearer sesame"
    assert api.last["headers"]["User-Agent"].startswith("workitem-operator/")


async def test_cluster_wide_and_core_kinds_have_their_own_urls(api: Api, cluster: Cluster) -> None:
    api.answers = [web.json_response(item()), web.json_response(item())]
    await cluster.get(NAMESPACES, None, "team")
    assert api.last["path"] == "/api/v1/namespaces/team"
    await cluster.get(SECRETS, "team", "token")
    assert api.last["path"] == "/api/v1/namespaces/team/secrets/token"


async def test_names_are_quoted_so_that_they_cannot_leave_their_place(api: Api, cluster: Cluster) -> None:
    api.answers = [status(404, "NotFound")]
    assert await cluster.get(SECRETS, "team", "../other?x=1/y") is None
    assert api.last["path"] == "/api/v1/namespaces/team/secrets/..%2Fother%3Fx=1%2Fy"


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_name_that_would_vanish_from_the_url_is_refused(api: Api, cluster: Cluster, name: str) -> None:
    with pytest.raises(ValueError, match="names no object"):
        await cluster.delete(JOBS, "team", name)
    assert not api.requests


async def test_list_pages_until_the_server_has_no_more(api: Api, cluster: Cluster) -> None:
    api.answers = [
        web.json_response({"items": [item("a"), item("b")], "metadata": {"continue": "to=ken&"}}),
        web.json_response({"items": [item("c")], "metadata": {}}),
    ]
    assert await listed(cluster, field_selector="metadata.name=x", label_selector="l=1", limit=2) == ["a", "b", "c"]
    assert api.requests[0]["query"] == {"limit": "2", "fieldSelector": "metadata.name=x", "labelSelector": "l=1"}
    assert api.requests[1]["query"]["continue"] == "to=ken&"


async def test_list_without_a_namespace_reads_all_and_null_items_are_none(api: Api, cluster: Cluster) -> None:
    api.answers = [web.json_response({"items": None, "metadata": {}})]
    assert await listed(cluster, None) == []
    assert api.last["path"] == "/apis/workitems.dev/v1alpha1/workitems"


async def test_list_whose_place_was_forgotten_is_transient_after_the_first_page(api: Api, cluster: Cluster) -> None:
    api.answers = [
        web.json_response({"items": [item("a")], "metadata": {"continue": "old"}}),
        status(410, "Expired", "the continue token is too old"),
    ]
    found = cluster.list(WORKITEMS, "team")
    assert await anext(found) == item("a")
    with pytest.raises(errors.Transient, match="too old"):
        await anext(found)


async def test_apply_names_its_manager_and_never_forces(api: Api, cluster: Cluster) -> None:
    api.answers = [web.json_response(item(uid="1")), status(409, "Conflict", "conflict with kubectl-edit")]
    assert await cluster.apply(WORKITEMS, "team", item(), manager="us") == item(uid="1")
    assert (api.last["method"], api.last["query"], api.last["body"]) == ("PATCH", {"fieldManager": "us"}, item())
    assert api.last["headers"]["Content-Type"] == "application/apply-patch+yaml"
    with pytest.raises(errors.Conflict, match="kubectl-edit"):
        await cluster.apply(WORKITEMS, "team", item(), manager="us")


async def test_create_posts_to_the_collection(api: Api, cluster: Cluster) -> None:
    api.answers = [web.json_response(item(uid="1"), status=201)]
    assert await cluster.create(JOBS, "team", item()) == item(uid="1")
    assert (api.last["method"], api.last["path"]) == ("POST", "/apis/batch/v1/namespaces/team/jobs")
    assert api.last["body"] == item()


async def test_create_of_an_existing_name_is_none_but_a_quotas_conflict_is_a_conflict(
    api: Api, cluster: Cluster
) -> None:
    api.answers = [status(409, "AlreadyExists"), status(409, "Conflict")]
    assert await cluster.create(JOBS, "team", item()) is None
    with pytest.raises(errors.Conflict):
        await cluster.create(JOBS, "team", item())


async def test_replace_status_puts_the_whole_object_with_its_version(api: Api, cluster: Cluster) -> None:
    api.answers = [web.json_response(item(resourceVersion="8"))]
    assert await cluster.replace_status(WORKITEMS, item(resourceVersion="7")) == item(resourceVersion="8")
    assert api.last["method"] == "PUT"
    assert api.last["path"] == "/apis/workitems.dev/v1alpha1/namespaces/team/workitems/a/status"
    assert api.last["headers"]["Accept"].startswith("application/json;as=PartialObjectMetadata;"), "nobody reads more"
    assert api.last["body"]["metadata"]["resourceVersion"] == "7"


@pytest.mark.parametrize("answer", [(409, "Conflict"), (404, "NotFound")])
async def test_replace_status_of_a_changed_or_gone_object_is_a_conflict(
    api: Api, cluster: Cluster, answer: tuple[int, str]
) -> None:
    api.answers = [status(*answer)]
    with pytest.raises(errors.Conflict):
        await cluster.replace_status(WORKITEMS, item(resourceVersion="7"))


async def test_replace_status_without_a_version_is_never_sent(api: Api, cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="resourceVersion"):
        await cluster.replace_status(WORKITEMS, item())
    assert not api.requests


async def test_merge_patch_says_so_in_its_content_type(api: Api, cluster: Cluster) -> None:
    api.answers = [web.json_response(item()), web.json_response(item()), status(404, "NotFound")]
    assert await cluster.merge_patch(JOBS, "team", "a", {"spec": {"x": None}}) == item()
    assert api.last["headers"]["Content-Type"] == "application/merge-patch+json"
    assert (api.last["method"], api.last["body"]) == ("PATCH", {"spec": {"x": None}})
    await cluster.merge_patch(JOBS, "team", "a", {}, subresource="status")
    assert api.last["path"].endswith("/jobs/a/status")
    assert await cluster.merge_patch(JOBS, "team", "a", {}) is None


async def test_delete_names_the_uid_that_it_means(api: Api, cluster: Cluster) -> None:
    api.answers = [web.json_response({"kind": "Status", "status": "Success"}), web.json_response(item(), status=202)]
    assert await cluster.delete(JOBS, "team", "a", uid="u-1")
    assert api.last["body"]["preconditions"] == {"uid": "u-1"}
    assert api.last["body"]["propagationPolicy"] == "Background"
    assert await cluster.delete(JOBS, "team", "a", propagation="Foreground")
    assert "preconditions" not in api.last["body"]


@pytest.mark.parametrize("answer", [(404, "NotFound"), (409, "Conflict")])
async def test_delete_of_a_gone_or_other_object_is_false(api: Api, cluster: Cluster, answer: tuple[int, str]) -> None:
    api.answers = [status(*answer)]
    assert not await cluster.delete(JOBS, "team", "a", uid="u-1")


# --- errors


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
async def test_a_server_in_trouble_is_transient(api: Api, cluster: Cluster, code: int) -> None:
    api.answers = [status(code, "Trouble", "etcd has no leader")]
    with pytest.raises(errors.Transient, match=rf"^get jobs\.batch team/a: .* {code}: etcd has no leader") as caught:
        await cluster.get(JOBS, "team", "a")
    assert caught.value.delay_seconds is None
    assert not isinstance(caught.value, errors.Conflict)


@pytest.mark.parametrize(
    ("answer", "delay_seconds"),
    [
        (web.Response(status=429, headers={"Retry-After": "7"}, text="slow down"), 7),
        (status(503, "ServerTimeout", retryAfterSeconds=3), 3),
        (web.Response(status=503, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), None),
    ],
)
async def test_the_delay_that_the_server_asks_for_is_kept(
    api: Api, cluster: Cluster, answer: web.Response, delay_seconds: float | None
) -> None:
    api.answers = [answer]
    with pytest.raises(errors.Transient) as caught:
        await cluster.get(JOBS, "team", "a")
    assert caught.value.delay_seconds == delay_seconds


@pytest.mark.parametrize(
    ("answer", "reason", "sentence"),
    [
        (status(400, "BadRequest", "no"), "Invalid", "create jobs.batch team/a: the API server answered 400: no"),
        (status(422, "Invalid", "spec.x: Required"), "Invalid", "spec.x: Required"),
        (status(413, "RequestEntityTooLarge", "too large"), "Invalid", "too large"),
        (status(415, "UnsupportedMediaType", "what"), "Refused", "what"),
        (status(401, "Unauthorized", "Unauthorized"), "Unauthorized", "operator's credentials"),
        (
            status(403, "Forbidden", 'User "system:serviceaccount:w:w" cannot create resource "jobs"'),
            "Forbidden",
            "The operator's ServiceAccount lacks create on jobs in group batch",
        ),
        (status(403, "Forbidden", "exceeded quota: small"), "QuotaExceeded", "exceeded quota: small"),
        (status(403, "Forbidden", "violates a policy"), "Forbidden", "violates a policy"),
        (
            status(403, "Forbidden", "unable to create", causes=[{"reason": "NamespaceTerminating"}]),
            "NamespaceTerminating",
            "unable to create",
        ),
        (status(404, "NotFound", 'namespaces "team" not found'), "NotFound", 'namespaces "team" not found'),
    ],
)
async def test_a_refusal_is_permanent_and_says_who_must_do_what(
    api: Api, cluster: Cluster, answer: web.Response, reason: str, sentence: str
) -> None:
    api.answers = [answer]
    with pytest.raises(errors.Permanent) as caught:
        await cluster.create(JOBS, "team", item())
    assert caught.value.reason == reason
    assert sentence in str(caught.value)


async def test_a_missing_subresource_permission_is_named_as_rbac_names_it(api: Api, cluster: Cluster) -> None:
    api.answers = [status(403, "Forbidden", "User cannot update")]
    with pytest.raises(errors.Permanent, match=r"lacks update on workitems/status in group workitems\.dev"):
        await cluster.replace_status(WORKITEMS, item(resourceVersion="1"))


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=404, text="404 page not found\n"),
        lambda: status(404, "NotFound", "the server could not find the requested resource"),
    ],
    ids=["unknown group", "unknown kind"],
)
async def test_a_kind_that_is_not_installed_is_no_absent_object(
    api: Api, cluster: Cluster, answer: Callable[[], web.Response]
) -> None:
    api.answers = [answer(), answer(), answer()]
    with pytest.raises(errors.Permanent, match="CRDs installed"):
        await cluster.get(WORKITEMS, "team", "a")
    with pytest.raises(errors.Permanent, match="CRDs installed"):
        await cluster.delete(WORKITEMS, "team", "a")
    with pytest.raises(errors.Permanent, match="CRDs installed"):
        await cluster.replace_status(WORKITEMS, item(resourceVersion="1"))


async def test_long_messages_are_cut(api: Api, cluster: Cluster) -> None:
    api.answers = [status(500, "InternalError", "x" * 10_000)]
    with pytest.raises(errors.Transient) as caught:
        await cluster.get(JOBS, "team", "a")
    assert str(caught.value).count("x") == 500


async def test_half_an_answer_is_transient_and_not_quoted(api: Api, cluster: Cluster) -> None:
    api.answers = [web.Response(text='{"data": {"password": "aHVudGVyMg==')]
    with pytest.raises(errors.Transient, match="no JSON object") as caught:
        await cluster.get(SECRETS, "team", "a")
    assert "aHVudGVyMg" not in str(caught.value)


async def test_a_connection_cut_in_the_middle_is_transient(api: Api, cluster: Cluster) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"{")
        assert request.transport is not None
        request.transport.abort()
        return response

    api.answers = [cut]
    with pytest.raises(errors.Transient, match="no answer"):
        await cluster.get(JOBS, "team", "a")


async def test_a_server_that_is_not_there_is_transient(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "http://127.0.0.1:1", {"token": "x"})
    cluster = await Cluster.connect(settings(kubeconfig=path))
    with pytest.raises(errors.Transient, match="no answer"):
        await cluster.get(JOBS, "team", "a")
    assert cluster.calls == {("get", "jobs.batch", 0): 1}
    await cluster.close()


async def test_a_server_that_hangs_is_transient_after_the_timeout(api: Api, tmp_path: Path) -> None:
    closing = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        await closing.wait()
        return web.Response()

    api.answers = [hang]
    path = kubeconfig(tmp_path, api.url, {"token": "x"})
    cluster = await Cluster.connect(settings(kubeconfig=path, context="right", request_timeout_seconds=0.05))
    with pytest.raises(errors.Transient, match="no answer in time"):
        await cluster.get(JOBS, "team", "a")
    closing.set()
    await cluster.close()


async def test_every_request_is_counted(api: Api, cluster: Cluster) -> None:
    api.answers = [web.json_response(item()), status(404, "NotFound"), status(409, "AlreadyExists")]
    await cluster.get(JOBS, "team", "a")
    await cluster.get(JOBS, "team", "a")
    await cluster.create(SECRETS, "team", item())
    assert cluster.calls == {
        ("get", "jobs.batch", 200): 1,
        ("get", "jobs.batch", 404): 1,
        ("create", "secrets", 409): 1,
    }


async def test_thirty_two_requests_at_once_share_one_session(api: Api, cluster: Cluster) -> None:
    arrived = 0
    everyone = asyncio.Event()

    async def together(request: web.Request) -> web.StreamResponse:
        nonlocal arrived
        arrived += 1
        if arrived == 32:
            everyone.set()
        await everyone.wait()
        return web.json_response(item())

    api.answers = [together] * 32
    assert len(await asyncio.gather(*(cluster.get(JOBS, "team", f"job-{n}") for n in range(32)))) == 32


# --- login


async def test_a_token_file_is_read_again_when_it_has_aged(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    path = kubeconfig(tmp_path, api.url, {"tokenFile": str(token)})
    cluster = await Cluster.connect(settings(kubeconfig=path, context="right"))
    api.answers = [web.json_response(item()), web.json_response(item())]
    token.write_text("second")
    await cluster.get(JOBS, "team", "a")
    assert api.last["headers"]["Authorization"] == "Bearer first"
    monkeypatch.setattr(login, "REFRESH_SECONDS", 0)
    await cluster.get(JOBS, "team", "a")
    assert api.last["headers"]["Authorization"] == "Bearer second"
    await cluster.close()


def plugin(folder: Path, source: str) -> dict[str, Any]:
    path = folder / "plugin"
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path)}}


async def test_an_exec_plugin_gives_the_token(api: Api, tmp_path: Path) -> None:
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "minted"},
    }
    user = plugin(tmp_path, f"print({json.dumps(credential)!r})")
    cluster = await Cluster.connect(settings(kubeconfig=kubeconfig(tmp_path, api.url, user), context="right"))
    api.answers = [web.json_response(item())]
    await cluster.get(JOBS, "team", "a")
    assert api.last["headers"]["Authorization"] == "Bearer minted"
    await cluster.close()


async def test_an_exec_plugin_that_fails_is_no_anonymous_login(api: Api, tmp_path: Path) -> None:
    user = plugin(tmp_path, "raise SystemExit(1)")
    with pytest.raises(errors.Permanent, match="exec plugin") as caught:
        await Cluster.connect(settings(kubeconfig=kubeconfig(tmp_path, api.url, user), context="right"))
    assert caught.value.reason == "LoginFailed"


@pytest.mark.parametrize("content", [None, "{", "", "[]", "{}", "current-context: absent\ncontexts: []\n"])
async def test_an_unusable_kubeconfig_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "unusable"
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.Permanent, match=str(path)) as caught:
        await Cluster.connect(settings(kubeconfig=str(path)))
    assert caught.value.reason == "LoginFailed"


async def test_no_kubeconfig_outside_a_pod_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(errors.Permanent, match="WORKITEMS_KUBECONFIG"):
        await Cluster.connect(settings())


async def test_a_pod_logs_in_with_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "kubernetes.aio.config.incluster_config"
    (tmp_path / "token").write_text("projected")
    (tmp_path / "ca.crt").write_text("a certificate")
    monkeypatch.setattr(f"{folder}.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(f"{folder}.SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    configuration = await login.configuration(settings())
    assert configuration.host == "https://[fd00::1]:443"
    assert configuration.api_key["BearerToken"] == "bearer projected"
    assert configuration.refresh_api_key_hook is not None


def test_a_resource_reads_as_kubectl_names_it() -> None:
    assert str(WORKITEMS) == "workitems.workitems.dev"
    assert str(Resource("", "v1", "pods")) == "pods"
    assert issubclass(aiohttp.ServerTimeoutError, OSError | aiohttp.ClientError)


def pieces(*data: bytes, cut: bool = False) -> Callable[[web.Request], Any]:
    """An answer that comes in pieces, as a watch's does; `cut`: its end never comes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for piece in data:
            await response.write(piece)
            await asyncio.sleep(0)
        if cut and request.transport is not None:
            request.transport.close()
        return response

    return answer


def event(kind: str, /, **body: Any) -> bytes:
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


async def watched(cluster: Cluster) -> list[tuple[str, str]]:
    changes = cluster.watch(JOBS, "team", label_selector="app=x", since="7")
    return [(kind, body["metadata"]["name"]) async for kind, body in changes]


async def test_a_watch_gives_objects_however_their_bytes_arrive(api: Api, cluster: Cluster) -> None:
    large = event("MODIFIED", metadata={"name": "b" * 300_000})
    lines = event("ADDED", **item("a")) + large + event("BOOKMARK", metadata={"name": ""})
    api.answers = [pieces(lines[:20], lines[20:90], lines[90:1000], lines[1000:])]
    assert await watched(cluster) == [("ADDED", "a"), ("MODIFIED", "b" * 300_000), ("BOOKMARK", "")]
    assert api.last["path"] == "/apis/batch/v1/namespaces/team/jobs"
    assert api.last["query"] == {
        "watch": "true",
        "resourceVersion": "7",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "300",
        "labelSelector": "app=x",
    }
    assert cluster.calls["watch", "jobs.batch", 200] == 1


async def test_a_watch_leaves_out_what_nobody_reads_of_its_objects(api: Api, cluster: Cluster) -> None:
    """As the API server writes them; no text that a user may write is taken for the end of a field."""
    metadata = {
        "name": "a",
        "resourceVersion": "7",
        "annotations": {"note": ',"managedFields":[ and ,"status":{ and ,\\"status\\":{'},
        "ownerReferences": [{"uid": "u", "controller": True}],
    }
    managed = [{"manager": "kubelet", "fieldsV1": {"f:status": {'k:{"type":"Ready"}': {"f:status": {}}}}}]
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    spec = {"containers": [{"name": "agent", "command": [',"status":{']}]}
    pod = {"kind": "Pod", "metadata": {**metadata, "managedFields": managed}, "spec": spec, "status": status}
    unmanaged = {"kind": "Pod", "metadata": metadata, "spec": spec, "status": status}
    in_another_order = {"kind": "Pod", "status": status, "metadata": {**metadata, "managedFields": managed}}
    bodies = (pod, unmanaged, in_another_order)
    lines = [json.dumps({"type": "ADDED", "object": body}, separators=(",", ":")).encode() + b"\n" for body in bodies]
    api.answers = [pieces(*lines)]
    changes = cluster.watch(PODS, "team", label_selector="", since="7")
    assert [body async for _, body in changes] == [
        {"kind": "Pod", "metadata": metadata, "status": status},
        unmanaged,
        in_another_order,
    ]


@pytest.mark.parametrize("late", [True, False])
async def test_a_history_that_is_forgotten_is_told_apart(api: Api, cluster: Cluster, late: bool) -> None:
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 7 (9)"}
    api.answers = [pieces(event("ERROR", **gone)) if late else status(410, "Expired")]
    with pytest.raises(errors.Expired):
        await watched(cluster)


async def test_a_watch_that_is_cut_or_talks_nonsense_may_be_tried_again(api: Api, cluster: Cluster) -> None:
    api.answers = [
        pieces(event("ADDED", **item("a")), cut=True),
        pieces(b"<html>\n"),
        pieces(b"[]\n"),
        status(500, "InternalError"),
    ]
    for _ in range(4):
        with pytest.raises(errors.Transient) as failed:
            await watched(cluster)
        assert not isinstance(failed.value, errors.Expired)


async def test_a_watch_that_is_forbidden_says_which_right_is_missing(api: Api, cluster: Cluster) -> None:
    api.answers = [status(403, "Forbidden", "user cannot watch jobs")]
    with pytest.raises(errors.Permanent, match="lacks watch on jobs in group batch"):
        await watched(cluster)


async def test_the_present_is_one_short_list(api: Api, cluster: Cluster) -> None:
    api.answers = [web.json_response({"metadata": {"resourceVersion": "12"}, "items": []})]
    assert await cluster.version(JOBS, None) == "12"
    assert (api.last["path"], api.last["query"]) == ("/apis/batch/v1/jobs", {"limit": "1"})
