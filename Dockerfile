# Build: docker build -t finwheel .          (or `make image`, with whichever engine there is)
# Run:   see deploy/README.md; the capabilities it needs are named there, each with its reason.
#
# Stages: `source` compiles what is checked out and is what a build takes; `prebuilt` takes target/image/finwheel instead,
# built on the host against the same Debian, for machines whose containers reach no crate registry:
# docker build --build-arg BINARY=prebuilt .

ARG BINARY=source

FROM docker.io/library/rust:1-bookworm AS source
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      clang llvm libclang-dev libbpf-dev libelf-dev linux-libc-dev m4 make pkg-config zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin finwheel \
 && install -s -D target/release/finwheel /out/finwheel

FROM docker.io/library/debian:bookworm-slim AS prebuilt
COPY target/image/finwheel /out/finwheel

# hadolint ignore=DL3006
FROM ${BINARY} AS binary

FROM docker.io/library/debian:bookworm-slim
COPY --from=binary /out/finwheel /usr/local/bin/finwheel
# What the ring library links: libelf, and zlib with it. The capabilities are put on the file as permitted only: it can be
# executed also where they are not granted (`finwheel check`), and makes effective by itself what it was given. So a user
# other than root can have them, which engines do not arrange otherwise.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libelf1 zlib1g libcap2-bin \
 && setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock=p /usr/local/bin/finwheel \
 && apt-get purge -y --auto-remove libcap2-bin \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /run/finwheel && chown 65532:65532 /run/finwheel
COPY config/finwheel.toml /usr/share/doc/finwheel/finwheel.toml
USER 65532:65532
# The configuration is mounted at /etc/finwheel/finwheel.toml. SIGTERM drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["finwheel"]
CMD ["run"]
