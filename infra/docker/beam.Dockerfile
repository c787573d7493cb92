# Workers of Beam on Dataflow, or on Flink with --environment_type=DOCKER; also the launcher of the flex template.
#   docker build -f infra/docker/beam.Dockerfile -t REGION-docker.pkg.dev/PROJECT/ddsp/beam:TAG .
# The version of Beam must be the one in constraints.txt (a test compares them).
ARG BEAM_VERSION=2.77.0
ARG LAUNCHER=gcr.io/dataflow-templates-base/python311-template-launcher-base:latest

# hadolint ignore=DL3006
FROM ${LAUNCHER} AS launcher

FROM apache/beam_python3.11_sdk:${BEAM_VERSION}

# ffmpeg reads what libsndfile cannot (m4a, aac, ...); libsndfile itself is inside the soundfile wheel.
# Debian keeps only the newest build of a package: a pinned version would break the image at the next update.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ffmpeg \
    && rm -rf /var/lib/apt/lists/*

COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher

# What the package needs, in a layer of its own: a change of the code does not install TensorFlow again.
# The weights of the pitch estimator are inside the wheel of swift-f0.
WORKDIR /opt/ddsp
COPY setup.py pyproject.toml constraints.txt README.md LICENSE ./
COPY ddsp/version.py ddsp/version.py
RUN pip install --no-cache-dir --constraint constraints.txt '.[pipelines,cloud,dataflow]'

COPY . .
RUN pip install --no-cache-dir --no-deps . \
    && useradd --create-home --uid 1000 ddsp

ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/ddsp/infra/dataflow/launch.py
USER 1000
WORKDIR /home/ddsp
# The entry point is that of the base image, /opt/apache/beam/boot.
