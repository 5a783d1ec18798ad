# syntax=docker/dockerfile:1
# One image for every process; docker-compose.yml says which one a container runs. It holds no secrets.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/rmos
ENV PATH=/opt/rmos/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
# The lock file first: the layer below is built anew only when it changes.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY shared shared
COPY producer producer
COPY worker worker
COPY advisory_store advisory_store
# --no-build-isolation: the build backend comes from the lock file too.
RUN pip install --no-deps --no-build-isolation .

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
