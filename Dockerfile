# syntax=docker/dockerfile:1.9
# The images of the fleet. One of a program, which is what the chart and compose.yaml use:
#   docker build --build-arg SERVICE=ingest --tag mqtt-fleet/ingest:dev .
# One that holds all of them, `fleet` first:
#   docker build --target all --tag mqtt-fleet/all:dev .
# The programs are compiled together, once for all images; to compile one alone, add --build-arg PACKAGES="-p ingest".

FROM rust:1.95.0-bookworm AS chef
# The image's own toolchain; without it rustup would fetch what rust-toolchain.toml asks for beside.
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_TERM_COLOR=never
# The last stage has no zlib to link to.
ENV LIBZ_SYS_STATIC=1
RUN cargo install --locked --version 0.1.78 cargo-chef
WORKDIR /src

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
ARG PACKAGES="-p ingest -p alerting -p status-tracker -p bridge -p device-sim -p fleet"
COPY --from=plan /src/recipe.json recipe.json
# The dependencies are a layer of their own: it stays until Cargo.lock changes.
RUN cargo chef cook --release --locked $PACKAGES --bins --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked $PACKAGES --bins
RUN mkdir -p /out/bin /out/data \
    && find target/release -maxdepth 1 -type f -executable -exec cp -t /out/bin {} +

# No shell, no package manager; certificates, time zones and the C library are there.
FROM gcr.io/distroless/cc-debian12:nonroot@sha256:9dac0a79194e45a7da0158a9c6da57b217585af0786db3845d1f0ec1a0dd182f AS base
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/mqtt-fleet/mqtt-fleet"
# The default store, sqlite://data/fleet.db, is relative to the working directory.
COPY --from=build --chown=65532:65532 /out/data /data
WORKDIR /
USER 65532:65532
EXPOSE 9100

FROM base AS all
COPY --from=build /out/bin/ /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/fleet"]

FROM base AS one
ARG SERVICE=fleet
LABEL org.opencontainers.image.title="$SERVICE"
COPY --from=build /out/bin/$SERVICE /usr/local/bin/service
ENTRYPOINT ["/usr/local/bin/service"]
