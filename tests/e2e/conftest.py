"""One cluster, one operator and one git server for all end-to-end tests; a namespace of its own for each.

The cluster is the one that hack/cluster chooses; any other context is refused. The namespaces enforce the restricted
Pod Security level. An operator that the demo left in the cluster is scaled to nothing while the tests run.

`pytest -n 4 --dist loadfile -m "not alone" tests/e2e` runs what can run side by side: the tests of a module that share
a namespace stay in one process. A test that kills the shared operator, or takes the cluster apart, is marked
`alone` and runs afterwards, in one process.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pykube
import pytest
from xdist.scheduler import LoadScopeScheduling

from hack.cluster import images
from hack.cluster.model import Cluster
from hack.gitserver.manifests import GitServer, secret
from tests.e2e import session
from tests.e2e.lab import READ_SECONDS, Lab, agent_config_map
from tests.e2e.operator_process import OperatorProcess

END = pytest.StashKey[contextlib.ExitStack]()
SHARED = pytest.StashKey[session.Shared]()
MESSAGE = "workitems_e2e"
SPREAD = {"test_main_path.py"}
"""Modules whose tests have a namespace each, so that any process may take any of them."""
TIMEOUT_SECONDS = 900
"""Of a test with all that it shares: each of its waits ends by itself, and says what it has waited for."""


# --- several processes


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Prepare everything before the first process starts, and tell each of them."""
    config: pytest.Config = node.config
    if SHARED not in config.stash:
        stack = config.stash.setdefault(END, contextlib.ExitStack())
        factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]
        config.stash[SHARED] = stack.enter_context(session.prepared(factory.mktemp("e2e")))
    node.workerinput[MESSAGE] = config.stash[SHARED].as_message()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop what was prepared."""
    if (stack := session.config.stash.get(END, None)) is not None:
        stack.close()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """One process for each module, as its tests share a namespace; see `SPREAD` for the others."""
    return _ByModule(config, log) if config.getvalue("dist") == "loadfile" else None


class _ByModule(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return nodeid if module.rpartition("/")[2] in SPREAD else module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The timeout of pyproject.toml is shorter than two waits in a row may be on a slow machine."""
    for item in items:
        if item.path.is_relative_to(session.ROOT / "tests" / "e2e") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Say so where a test would disturb the others."""
    if hasattr(item.config, "workerinput") and item.get_closest_marker("alone"):
        pytest.fail("it is marked alone: leave it out with -m 'not alone', or run without -n", pytrace=False)


def _told(config: pytest.Config) -> session.Shared | None:
    """What another process has prepared for this one; None in a session of one process."""
    if not hasattr(config, "workerinput"):
        return None
    assert MESSAGE in config.workerinput, "name the folder: pytest -n 4 tests/e2e"
    return session.Shared.from_message(config.workerinput[MESSAGE])


# --- what all tests share


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """The cluster of the tests, up; with our CRDs and RBAC, and without a leftover of an earlier session."""
    if _told(pytestconfig) is not None:
        yield session.chosen_cluster()
        return
    with session.prepared_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def built(pytestconfig: pytest.Config, cluster: Cluster) -> images.Images:
    """The images of this checkout, in the cluster."""
    told = _told(pytestconfig)
    return images.build_and_load(cluster) if told is None else told.images


@pytest.fixture(scope="session")
def git_server(pytestconfig: pytest.Config, cluster: Cluster, built: images.Images) -> GitServer:
    """A real git server in the cluster, with the tests' seed repository."""
    told = _told(pytestconfig)
    return session.prepare_git_server(cluster, built) if told is None else session.git_server(built)


@pytest.fixture(scope="session")
def operator(
    pytestconfig: pytest.Config, cluster: Cluster, built: images.Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """The operator, as a process."""
    told = _told(pytestconfig)
    if told is not None:
        yield told.operator
        return
    with session.running_operator(cluster, built, tmp_path_factory.mktemp("operator")) as process:
        yield process


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> pykube.HTTPClient:
    """pykube-ng on the tests' context."""
    config = pykube.KubeConfig.from_file(str(cluster.kubeconfig))
    config.set_current_context(cluster.context)
    return pykube.HTTPClient(config, timeout=READ_SECONDS)


# --- what a test has for itself


@pytest.fixture
def lab(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    api: pykube.HTTPClient,
    git_server: GitServer,
    operator: OperatorProcess,
) -> Iterator[Lab]:
    """A namespace with the git credentials and the scripted agent; deleted after the test."""
    yield from _laboratory(request.node.name, Lab(cluster, api, "", git_server, operator))


@pytest.fixture(scope="module")
def shared_lab(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    api: pykube.HTTPClient,
    git_server: GitServer,
    operator: OperatorProcess,
) -> Iterator[Lab]:
    """One namespace for all tests of a module: their items run side by side from the first test on."""
    yield from _laboratory(request.node.name, Lab(cluster, api, "", git_server, operator))


def _laboratory(title: str, lab: Lab) -> Iterator[Lab]:
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:36].rstrip("-")
    lab.namespace = f"wi-{words}-{uuid.uuid4().hex[:6]}"
    session.apply(lab.cluster, session.namespace(lab.namespace))
    credentials = secret(lab.git_server, "bot", "correct horse")
    credentials["metadata"]["namespace"] = lab.namespace
    agent = {**agent_config_map(), "metadata": {"name": "script-agent", "namespace": lab.namespace}}
    session.apply(lab.cluster, credentials, agent)
    yield lab
    session.kubectl(lab.cluster, "delete", "namespace", lab.namespace, "--wait=false")
