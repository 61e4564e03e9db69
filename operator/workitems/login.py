"""Login to the API server: as the pod's service account, or by an explicit kubeconfig; never by guessing one.

A kubeconfig from a home directory is not picked up by itself: an operator that was started on a laptop by mistake
must not start to work on whatever cluster was used last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import aiohttp
import kopf
import yaml
from kubernetes.aio import client, config

from workitems import errors
from workitems.settings import Settings

REFRESH_SECONDS = 60
"""How old a kubeconfig's token may get before its file or its plugin is asked again."""


async def watching(settings: Settings, accepted: Callable[[str], None]) -> kopf.AiohttpSession:
    """The same login for kopf, whose own session does not tell when a watch begins: `accepted` takes its URL's path.

    Raises as below. kopf closes the session.
    """
    found: client.Configuration = await configuration(settings)
    scheme, _sep, token = (found.api_key.get("BearerToken") or "").partition(" ")
    info = kopf.ConnectionInfo(
        server=found.host,
        ca_path=found.ssl_ca_cert,
        insecure=not found.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=found.cert_file,
        private_key_path=found.key_file,
    )

    async def answered(_session: object, _context: object, end: aiohttp.TraceRequestEndParams) -> None:
        if end.url.query.get("watch") == "true" and end.response.status == HTTPStatus.OK:
            accepted(end.url.path)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(answered)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        trace_configs=[trace],
    )
    return kopf.AiohttpSession(server=info.server, aiohttp_session=session)


async def configuration(settings: Settings) -> Any:
    """A kubernetes.aio Configuration that renews its token by itself. Raises errors.Permanent("LoginFailed")."""
    result: Any = client.Configuration()
    try:
        if settings.kubeconfig is None:
            # Reads its token file again every minute by itself.
            config.load_incluster_config(client_configuration=result)  # type: ignore[no-untyped-call]
            return result
        loader: Any = await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=settings.kubeconfig,
            context=settings.context,
            client_configuration=result,
            persist_config=False,  # a file that somebody else owns
        )
    # TypeError: a file that is YAML but no mapping.
    except (config.ConfigException, OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise _failed(settings, str(error)) from error
    # A plugin's failure is only logged by the loader, which goes on without credentials.
    if "exec" in (loader._user or ()) and not (result.api_key or result.cert_file):  # noqa: SLF001 - not exposed
        raise _failed(settings, "its exec plugin gave neither a token nor a certificate (the log has its error)")
    result.refresh_api_key_hook = _Renewal(loader)
    return result


def _failed(settings: Settings, why: str) -> errors.Permanent:
    means = f"kubeconfig {settings.kubeconfig}" if settings.kubeconfig else "the service account of a pod"
    hint = "" if settings.kubeconfig else ". Outside a pod set WORKITEMS_KUBECONFIG"
    return errors.Permanent("LoginFailed", f"No login to the cluster by {means}: {why}{hint}")


class _Renewal:
    """Renews a kubeconfig's token, which its loader does only when asked: from a token file or an exec plugin."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._lock = asyncio.Lock()
        self._renewed = time.monotonic()

    async def __call__(self, result: Any) -> None:
        # All requests wait for the one that renews: an expired token would be refused, which counts as permanent.
        async with self._lock:
            if time.monotonic() - self._renewed >= REFRESH_SECONDS:
                await self._loader.load_and_set(result)
                self._renewed = time.monotonic()
