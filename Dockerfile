# syntax=docker/dockerfile:1
# One file for every program: docker build --build-arg SERVICE=ingest .
FROM rust:1.95.0-bookworm AS build
ARG SERVICE
RUN test -n "$SERVICE" || { echo "name the program: --build-arg SERVICE=ingest" >&2; exit 1; }
WORKDIR /src
COPY . .
# The caches are shared by the images of all programs, so dependencies are compiled once.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --bin "$SERVICE" \
    && install -D "target/release/$SERVICE" /out/service \
    && mkdir /out/data

FROM gcr.io/distroless/cc-debian12:nonroot
ARG SERVICE
LABEL org.opencontainers.image.title="$SERVICE" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/mqtt-fleet/mqtt-fleet"
COPY --from=build /out/service /usr/local/bin/service
# The default store, sqlite://data/fleet.db, is relative to the working directory.
COPY --from=build --chown=nonroot:nonroot /out/data /data
WORKDIR /
EXPOSE 9100
ENTRYPOINT ["/usr/local/bin/service"]
