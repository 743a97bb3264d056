# The agent's image: the binary, on a base that has glibc (the driver's library needs its loader).
#
#   docker build --tag REGISTRY/mig-agent:v0.1.0 .
ARG BUILDER=rust:1.95-bookworm
ARG RUNTIME=debian:bookworm-slim

FROM ${BUILDER} AS builder
WORKDIR /src
COPY . .
RUN cargo build --locked --release -p mig-agent

FROM ${RUNTIME}
COPY --from=builder /src/target/release/mig-agent /usr/bin/mig-agent
LABEL org.opencontainers.image.title="mig-agent" \
      org.opencontainers.image.description="Offers the MIG slices of NVIDIA GPUs to Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["/usr/bin/mig-agent"]
