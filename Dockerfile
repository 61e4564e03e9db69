# Three images from one base: `operator` (the operator and the runner), `agent` (what an agent and a command gate need)
# and `claude` (the agent image with the Claude Code CLI, 381 MB more).
# BASE is any Debian or Ubuntu image with Python 3.11 or later; a cluster without a registry builds its own. The digest
# (of the index, so for every platform) is what counts, the tag is for readers; Renovate updates both.
ARG BASE=docker.io/library/python:3.13.14-slim-bookworm@sha256:67a1e1f215ccda113cfc024e8639049257e88f273898f595b61476d128d387e8

FROM ${BASE} AS git
RUN if ! command -v git >/dev/null || ! command -v ssh >/dev/null || ! command -v make >/dev/null; then \
        apt-get update \
        && apt-get install -y --no-install-recommends ca-certificates git make openssh-client \
        && rm -rf /var/lib/apt/lists/*; \
    fi
# git and ssh want a name for their uid; other uids work too, over http.
RUN groupadd --gid 1000 workitem && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /home/agent workitem

FROM ${BASE} AS build
COPY hack/uv.txt /opt/uv.txt
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --require-hashes -r /opt/uv.txt
ENV UV_PROJECT_ENVIRONMENT=/opt/workitems UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1
WORKDIR /src
# The dependencies first: they change less often than the code. Every wheel is checked against uv.lock's hashes.
COPY pyproject.toml uv.lock ./
# Optional extras, separated by spaces: apprise.
ARG EXTRAS=""
RUN for extra in ${EXTRAS}; do set -- "$@" --extra "${extra}"; done; \
    /opt/uv/bin/uv sync --frozen --no-dev --no-install-project "$@"

FROM git AS agent
RUN command -v python3 >/dev/null
USER 1000:1000
WORKDIR /home/agent

# The CLI's native binary, from its npm package; it needs no node. hack/cluster fetches it once for a machine and gives
# the folder as the build context `claude-cli` (hack/cluster/claude.py), which replaces this stage.
FROM ${BASE} AS claude-cli
ARG NPM_REGISTRY=https://registry.npmjs.org
ARG CLAUDE_CODE_VERSION=2.1.330
ARG CLAUDE_CODE_SHA512_AMD64=f469fe57b0ed27c3359f3b4ff42783565f60dd1b6b7a923bace153c8f4519d97bc0facde6c81ca982ecebc16aeb9cb803f45f493ce520cdfcb3d56728ec19ecd
ARG CLAUDE_CODE_SHA512_ARM64=578c9a9c0639100e54a70c113ed8d27ea0db36a0255097959f7358670d808264478dda52b0bb470336f14577e40276e3c135f3134b9e763431518d360113dcb0
COPY hack/release/claude_cli.py /fetch/
RUN python3 /fetch/claude_cli.py "${NPM_REGISTRY}" "${CLAUDE_CODE_VERSION}" \
    "${CLAUDE_CODE_SHA512_AMD64}" "${CLAUDE_CODE_SHA512_ARM64}" /claude

FROM agent AS claude
COPY --from=claude-cli /claude /usr/local/bin/claude

FROM git AS operator
COPY --from=build /opt/workitems /opt/workitems
# The code is a layer of its own: a change of it moves kilobytes, not the whole environment.
COPY operator/workitems /opt/operator/workitems
RUN /opt/workitems/bin/python -m compileall -q /opt/operator
# PYTHONSAFEPATH: a worktree is untrusted, and nothing in the working directory may be imported from it.
ENV PATH=/opt/workitems/bin:$PATH PYTHONPATH=/opt/operator PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# There are no plugins; looking for them takes a twentieth of a runner's start.
ENV PYDANTIC_DISABLE_PLUGINS=__all__
USER 1000:1000
ENTRYPOINT ["python", "-m", "workitems"]
CMD ["operate"]
