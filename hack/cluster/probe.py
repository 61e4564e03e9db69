"""Asking a part of the cluster over HTTP whether it is ready.

Every HTTPS answer is checked against the cluster's own authority, so that another program on the same port never passes
for ours, and no proxy of the environment is ever asked: all of this is this machine talking to itself.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from pathlib import Path


def answers(url: str, pki: Path | None = None) -> bool:
    """Whether `url` answers 200 within two seconds.

    Over HTTPS as the cluster's administrator, trusting only the authority in `pki`.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if pki:
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=2) as response:
            return bool(response.status == http.HTTPStatus.OK)
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return False  # refused, not yet speaking, or saying no: all of them mean "not ready"
