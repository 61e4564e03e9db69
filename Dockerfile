# Two images from one base: `operator` (the operator and the runner) and `agent` (what an agent and a command gate need).
# BASE is any Debian or Ubuntu image with Python 3.11 or later; a cluster without a registry builds its own.
ARG BASE=docker.io/library/python:3.13-slim-bookworm

FROM ${BASE} AS git
RUN if ! command -v git >/dev/null || ! command -v ssh >/dev/null || ! command -v make >/dev/null; then \
        apt-get update \
        && apt-get install -y --no-install-recommends ca-certificates git make openssh-client \
        && rm -rf /var/lib/apt/lists/*; \
    fi
# git and ssh want a name for their uid; other uids work too, over http.
RUN groupadd --gid 1000 workitem && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /home/agent workitem

FROM ${BASE} AS build
ARG UV_VERSION=0.13.9
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir uv==${UV_VERSION}
ENV UV_PROJECT_ENVIRONMENT=/opt/workitems UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1
WORKDIR /src
# The dependencies first: they change less often than the code. Every wheel is checked against uv.lock's hashes.
COPY pyproject.toml uv.lock ./
RUN /opt/uv/bin/uv sync --frozen --no-dev --no-install-project

FROM git AS agent
RUN command -v python3 >/dev/null
USER 1000:1000
WORKDIR /home/agent

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
