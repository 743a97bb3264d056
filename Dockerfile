# Two images: `mig-agent` (the default) and, for clusters without a GPU, `fake-nvml`. docs/image.md says more.
#
#   docker build --tag REGISTRY/mig-agent:v0.1.0 .
#   docker build --tag REGISTRY/fake-nvml:v0.1.0 --target fake-nvml .
#
# The driver's library needs glibc's loader, so the runtime base has glibc: not an older one than the builder's.
# To pin a base to the byte, give its digest: --build-arg RUNTIME=gcr.io/distroless/base-nossl-debian13@sha256:...
ARG BUILDER=docker.io/library/rust:1.95-slim-bookworm
ARG RUNTIME=gcr.io/distroless/base-nossl-debian13:nonroot

FROM ${BUILDER} AS sources
ENV CARGO_HOME=/cargo
WORKDIR /src
COPY . .

FROM sources AS builder
# The caches make a second build quick and are no part of any image. The secret is for a registry of your own:
# --secret id=cargo-config,src=$HOME/.cargo/config.toml
RUN --mount=type=cache,id=mig-agent-registry,target=/cargo/registry \
    --mount=type=cache,id=mig-agent-target,target=/target \
    --mount=type=secret,id=cargo-config,target=/cargo/config.toml \
    deploy/image/compile agent /images

FROM sources AS fake-builder
RUN --mount=type=cache,id=mig-agent-registry,target=/cargo/registry \
    --mount=type=cache,id=mig-agent-target,target=/target \
    --mount=type=secret,id=cargo-config,target=/cargo/config.toml \
    deploy/image/compile fake /images

FROM ${RUNTIME} AS fake-nvml
COPY --from=fake-builder /images/fake/ /
# It makes device nodes in a folder of the node's.
USER 0:0
WORKDIR /
ENTRYPOINT ["/usr/bin/fake-nvml"]
CMD ["--help"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="fake-nvml" \
      org.opencontainers.image.description="A pretended NVIDIA driver with MIG, for clusters that have no GPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM ${RUNTIME} AS mig-agent
COPY --from=builder /images/agent/ /
# Whoever runs it by hand is nobody. On a node it must be told to be root (`runAsUser: 0`), since the kubelet's folders are root's.
USER 65532:65532
WORKDIR /
EXPOSE 8080
ENTRYPOINT ["/usr/bin/mig-agent"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mig-agent" \
      org.opencontainers.image.description="Offers the MIG slices of NVIDIA GPUs to Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
