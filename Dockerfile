# The auditor as a container. Build it from a checkout:
#
#   docker build --build-arg COMMIT="$(git rev-parse --short=12 HEAD)" -t auditor .
#   docker run -d --name auditor --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#       -v auditor-ledger:/var/lib/auditor -v ./auditor.toml:/etc/auditor/auditor.toml:ro -v ./secrets:/run/secrets:ro auditor
#
# podman and buildah need `--format docker`, without which they leave HEALTHCHECK out. config/compose.yaml shows it among others.

# Any image with a Python of 3.11 or newer, its venv module, and certificates of authorities. Name it by digest for a build
# that can be repeated.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /build
# The libraries first: they change more rarely than the auditor.
COPY requirements.lock ./
RUN python3 -m venv /opt/auditor \
    && /opt/auditor/bin/python -m pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY LICENSE README.md pyproject.toml setup.py ./
COPY auditor auditor
# There is no git in here: whoever builds says what is built.
ARG COMMIT=""
# What was needed to build is not to run.
RUN AUDITOR_COMMIT="${COMMIT}" /opt/auditor/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /opt/auditor/bin/python -m pip uninstall --yes setuptools pip

FROM ${BASE_IMAGE}
ARG COMMIT=""
LABEL org.opencontainers.image.title="auditor" \
      org.opencontainers.image.description="Reads RabbitMQ's firehose and says which messages were lost." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/auditor /opt/auditor
# Made here, and not copied: a folder that is copied belongs to root.
RUN install -d -m 750 -o 10001 -g 10001 /var/lib/auditor
ENV PATH=/opt/auditor/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1
# By number: so it can be told from root without a look into the image (runAsNonRoot), and needs no entry in /etc/passwd.
USER 10001:10001
# The ledger outlives the container.
VOLUME ["/var/lib/auditor"]
# /metrics, /healthz, /readyz; beyond the container's own loopback only with AUDITOR_HTTP__LISTEN=0.0.0.0:9464
EXPOSE 9464
# Healthy: the daemon has written to the ledger a short while ago, is connected, and has no problem. So a container is called
# unhealthy while the broker is away, too, which no restart mends; whoever restarts by health should ask /healthz.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["auditor", "status", "--fail"]
# SIGTERM: the batch in hand is written, within daemon.shutdown_timeout (8 s); Docker kills after 10 s.
STOPSIGNAL SIGTERM
ENTRYPOINT ["auditor"]
CMD ["run"]
