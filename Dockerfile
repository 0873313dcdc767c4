# syntax=docker/dockerfile:1
# The service with its local model. docker build -t millstream .
# A first key, without which it serves nobody outside: docker run --rm -v millstream:/data millstream keys create --name=first --scope=admin
# And then: docker run -p 8000:8000 -v millstream:/data millstream

FROM python:3.11-slim-bookworm AS builder
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The lock is complete and has hashes: nothing is resolved, nothing else gets in.
COPY requirements.lock ./
RUN python -m venv /opt/millstream \
    && /opt/millstream/bin/python -m pip install --no-deps --require-hashes -r requirements.lock
# What builds the project comes from the other lock, by the same rule, and stays in this stage.
COPY requirements-dev.lock ./
RUN awk '/^[a-z]/ { wanted = /^(hatchling|packaging|pathspec|pluggy|trove-classifiers)==/ } wanted' \
        requirements-dev.lock > requirements-build.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/python -m pip install --no-deps --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY alembic alembic
COPY docs docs
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/millstream/bin/python -m pip install --no-deps --no-index dist/*.whl

FROM python:3.11-slim-bookworm
# libgomp: the local model computes with it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin millstream \
    && install --directory --owner millstream --group millstream /data
COPY --from=builder /opt/millstream /opt/millstream
ENV PATH=/opt/millstream/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MILLSTREAM_HOST=0.0.0.0 \
    MILLSTREAM_PORT=8000 \
    MILLSTREAM_DATABASE_URL=sqlite:////data/millstream.db
USER millstream
# Workflows of your own: mount them here and name the modules in MILLSTREAM_WORKFLOWS.
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['MILLSTREAM_PORT']}/readyz\", timeout=4)"]
ENTRYPOINT ["millstream"]
CMD ["serve"]
