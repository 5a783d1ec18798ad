# syntax=docker/dockerfile:1
# One image for every process; docker-compose.yml says which one a container runs. It holds no secrets, and no tools but
# those that run.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/rmos && python -m venv /opt/build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
# The lock files first: the layers below are built anew only when these change.
COPY requirements-runtime.lock requirements-build.lock ./
RUN /opt/rmos/bin/pip install --require-hashes -r requirements-runtime.lock
RUN /opt/build/bin/pip install --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY shared shared
COPY producer producer
COPY worker worker
COPY advisory_store advisory_store
RUN /opt/build/bin/python -m hatchling build -t wheel -d /dist \
 && /opt/rmos/bin/pip install --no-deps /dist/*.whl \
 && /opt/rmos/bin/pip check

FROM python:3.11-slim
ENV PATH=/opt/rmos/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Volumes take their first owner from these directories.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin rmos \
 && install -d -o rmos -g rmos -m 0750 /data /data/runs /data/advisories /data/index /data/keys
COPY --from=build /opt/rmos /opt/rmos
USER rmos
WORKDIR /data
CMD ["rmos", "--help"]
