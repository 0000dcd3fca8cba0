# kdcache in an image, which needs no network once it is built:
#   docker build --build-arg VERSION=0.1.0 -t kdcache .
#   docker run --rm --network none kdcache demo
# With a GPU: docker run --gpus all ...; your folders: -v "$PWD":/work.
ARG BASE=python:3.12-slim
FROM ${BASE}
ARG VERSION=0.1.0.dev0
WORKDIR /build
COPY . .
RUN SETUPTOOLS_SCM_PRETEND_VERSION=${VERSION} pip install --no-cache-dir --constraint constraints.txt . && rm -rf /build
WORKDIR /work
ENTRYPOINT ["kdcache"]
CMD ["--help"]
