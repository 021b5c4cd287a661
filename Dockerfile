# syntax=docker/dockerfile:1
# One image for web, workers and beat; which packages it holds is a build argument:
#   serving       web, inference on the CPU, beat (no torch)
#   serving-gpu   the same with ONNX Runtime for CUDA and the libraries it needs
#   training      everything, torch included, which finds a GPU where there is one
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
ARG REQUIREMENTS=serving
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=0
RUN python -m venv /opt/venv
COPY deploy/requirements/${REQUIREMENTS}.lock /tmp/requirements.lock
# Nothing is installed that the lock does not name with its hash.
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --require-hashes --no-deps --only-binary :all: \
    --requirement /tmp/requirements.lock

FROM ${PYTHON_IMAGE} AS site
# Numbers, not names: an orchestrator can then check that it is not root.
ARG USER_ID=10001
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY manage.py pyproject.toml ./
COPY ml ml
COPY webapp webapp
COPY templates templates
COPY static static
COPY deploy/health.py deploy/health.py
# NumPy would start a thread for each core of the host, and stand at the limit of its
# processes where these are many.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    DJANGO_SETTINGS_MODULE=webapp.config.settings \
    MIEN_HOME=/srv/mien \
    MIEN_LOG_FORMAT=json \
    MIEN_ALIVE_FILE=/tmp/alive \
    PROMETHEUS_MULTIPROC_DIR=/tmp/metrics \
    OMP_NUM_THREADS=1
# Static files are part of the image: nothing is written while it runs. The key is for
# this one command, and opens nothing.
RUN mkdir -p /tmp/metrics /srv/mien/training \
    && MIEN_SECRET_KEY=$(python -c 'import secrets; print(secrets.token_urlsafe(50))') \
       python manage.py collectstatic --noinput --verbosity 0 \
       --ignore '*.js.map' --ignore '*/redoc' --ignore rest_framework \
    && python -m compileall -q ml webapp \
    && rm -rf /tmp/metrics \
    # A volume that is mounted there takes over whom it belongs to.
    && chown ${USER_ID}:${USER_ID} /srv/mien/training
USER ${USER_ID}:${USER_ID}
EXPOSE 8000
ENTRYPOINT ["python", "-m", "webapp.config.serve"]
CMD ["web"]
