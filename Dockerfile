# Two images: `docker build --target run` works on a project folder, `--target serve` answers over HTTP: docs/containers.md
FROM python:3.11-slim AS build
WORKDIR /src
COPY constraints.txt pyproject.toml setup.py README.md LICENSE NOTICE ./
# What `reft init` puts into a new project folder; it goes into the wheel
COPY params.yaml dvc.yaml prefect.yaml .gitignore .dvcignore ./
COPY data/own/README.md data/own/
COPY models/own/README.md models/own/
COPY reft reft
COPY pipelines pipelines
COPY flows flows
# Options of pip, as another index for torch without CUDA; and packages of your own, as dvc-s3
ARG PIP_OPTIONS=""
ARG MORE=""
RUN python -m venv /opt/reft \
    && /opt/reft/bin/pip install --no-cache-dir $PIP_OPTIONS --constraint constraints.txt ".[postgres]" $MORE

FROM python:3.11-slim AS run
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /project \
    && useradd --create-home --uid 1000 reft \
    && install --directory --owner reft /project /store
COPY --from=build /opt/reft /opt/reft
ENV PATH=/opt/reft/bin:$PATH REFT_HOME=/store PYTHONUNBUFFERED=1
USER reft
WORKDIR /project
# No entry point: a worker of Prefect gives a command of its own
CMD ["reft", "run"]

FROM run AS serve
EXPOSE 8000
HEALTHCHECK --start-period=5m CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')"]
# Another address than 127.0.0.1 is refused without the variable REFT_SERVE_TOKEN
CMD ["reft", "serve", "--alias", "champion", "--host", "0.0.0.0", "--port", "8000"]
