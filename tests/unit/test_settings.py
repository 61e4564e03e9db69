import pytest

from workitems import errors
from workitems.settings import PREFIX, Settings, load

REQUIRED = {"NAMESPACE": "workitems", "RUNNER_IMAGE": "runner:1", "AGENT_IMAGE": "agent:1"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    for name, value in REQUIRED.items():
        monkeypatch.setenv(PREFIX + name, value)
    return monkeypatch


def test_three_values_are_enough(environment: pytest.MonkeyPatch) -> None:
    settings = load()
    assert settings.namespace == "workitems"
    assert settings.watch_namespaces == ()
    assert settings.kubeconfig is None
    assert (settings.run_uid, settings.run_gid, settings.fs_group) == (1000, 1000, 1000)
    assert settings.sweep_seconds == 180
    assert settings.log_format == "json"


def test_namespaces_are_separated_by_commas(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("WORKITEMS_WATCH_NAMESPACES", "team-a, team-b,")
    assert load().watch_namespaces == ("team-a", "team-b")
    environment.setenv("WORKITEMS_WATCH_NAMESPACES", "")
    assert load().watch_namespaces == ()


def test_an_empty_string_omits_ids_and_paths(environment: pytest.MonkeyPatch) -> None:
    for name in ("RUN_UID", "RUN_GID", "FS_GROUP", "KUBECONFIG", "CONTEXT"):
        environment.setenv(PREFIX + name, "")
    settings = load()
    assert (settings.run_uid, settings.run_gid, settings.fs_group) == (None, None, None)
    assert (settings.kubeconfig, settings.context) == (None, None)


@pytest.mark.parametrize("limit", ["64Mi", "1Gi", "2048Mi"])
def test_the_runners_memory_is_a_limit_that_its_request_allows(environment: pytest.MonkeyPatch, limit: str) -> None:
    assert load().runner_memory == "1Gi"
    environment.setenv("WORKITEMS_RUNNER_MEMORY", limit)
    assert load().runner_memory == limit


def test_the_log_level_is_read_in_any_case(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("WORKITEMS_LOG_LEVEL", "DEBUG")
    assert load().log_level == "debug"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKERS", "0"),
        ("RUN_UID", "0"),
        ("SWEEP_SECONDS", "-1"),
        ("NAMESPACE", "Not A Name"),
        ("WATCH_NAMESPACES", "a,B"),
        ("LOG_FORMAT", "xml"),
        ("HEALTH_PORT", "70000"),
        ("RUNNER_IMAGE", ""),
        ("RUNNER_MEMORY", "63Mi"),
        ("RUNNER_MEMORY", "1G"),
        ("RUNNER_MEMORY", "lots"),
        ("RUNNER_MEMORY", ""),
    ],
)
def test_an_unusable_value_is_refused_by_its_variables_name(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(PREFIX + name, value)
    with pytest.raises(errors.Invalid, match=PREFIX + name) as caught:
        load()
    assert caught.value.reason == "InvalidSettings"


def test_all_problems_are_told_at_once_and_values_are_not_repeated(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("WORKITEMS_NAMESPACE")
    environment.setenv("WORKITEMS_WORKERS", "hunter2")
    with pytest.raises(errors.Invalid, match=r"WORKITEMS_NAMESPACE.*WORKITEMS_WORKERS") as caught:
        load()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_field_documents_its_variable(name: str) -> None:
    assert str(Settings.model_fields[name].description).startswith(f"{PREFIX}{name.upper()}: ")


def test_the_models_credentials_are_a_secrets_name_and_its_key(environment: pytest.MonkeyPatch) -> None:
    for name in ("CLAUDE_IMAGE", "MODEL_SECRET", "MODEL_API_KEY", "MODEL_AUTH_TOKEN", "MODEL_BASE_URL"):
        environment.setenv(PREFIX + name, "")
    assert (load().claude_image, load().model_credentials) == (None, None)
    environment.setenv("WORKITEMS_MODEL_SECRET", "gateway")
    environment.setenv("WORKITEMS_MODEL_AUTH_TOKEN", "token")
    environment.setenv("WORKITEMS_MODEL_BASE_URL", "https://gateway.example.com")
    credentials = load().model_credentials
    assert credentials is not None
    assert (credentials.secret_name, credentials.auth_token, credentials.api_key) == ("gateway", "token", None)
    assert credentials.base_url == "https://gateway.example.com"
    environment.setenv("WORKITEMS_MODEL_BASE_URL", "https://user:secret@gateway.example.com")
    with pytest.raises(errors.Invalid, match="WORKITEMS_MODEL_BASE_URL") as caught:
        load()
    assert "secret@" not in str(caught.value)
