# The whole workflow for machines with NVIDIA GPUs: its code, and the environment of `make .venv DEVICE=cuda`.
# docs/rented.md explains how it runs.
FROM python:3.11.14-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ libc6-dev make tini \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 \
    UV_NO_CACHE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# Files that the environment needs: other edits do not install it again.
WORKDIR /opt/prefline
COPY Makefile ./
COPY envs/cuda.lock.txt envs/direct.toml envs/
COPY prefline/__init__.py prefline/errors.py prefline/optional_packages.py prefline/printable.py prefline/
COPY prefline/policies.py prefline/
COPY prefline/machine prefline/machine
RUN make .venv DEVICE=cuda
ENV PATH=/opt/prefline/.venv/bin:$PATH

COPY . project
RUN useradd --create-home --uid 1000 prefline \
    && install --directory --owner prefline /prefline
USER 1000
WORKDIR /prefline
# -g: all processes of a job hear that the pod ends, so that a training writes its checkpoint.
ENTRYPOINT ["tini", "-g", "--", "/opt/prefline/project/containers/start.sh"]
CMD ["snakemake", "results/winrate.png"]
