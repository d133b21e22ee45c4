# CPU:  docker build -t r2reg .
# GPU:  docker build -t r2reg:gpu --build-arg EXTRA=gpu .
# Run:  docker run --rm -v "$PWD:/data" r2reg demo -o demo
FROM python:3.11-slim

# Name of one extra of setup.cfg to install as well; empty for the CPU.
ARG EXTRA=""

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /src
COPY setup.cfg pyproject.toml MANIFEST.in README.md LICENSE ./
COPY r2reg ./r2reg
COPY cli ./cli
COPY models ./models
COPY data_manifests ./data_manifests
RUN python -m pip install ".${EXTRA:+[$EXTRA]}"

# A number, not a name: no account is made, and `docker run --user` may set another one. Hence HOME=/tmp, where any
# user may write.
ENV HOME=/tmp
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["r2reg"]
CMD ["--help"]
