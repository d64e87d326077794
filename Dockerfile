# Build: docker build -t finwheel .
# Run:   see deploy/README.md; the capabilities it needs are named there, each with its reason.

FROM docker.io/library/rust:1-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      clang llvm libclang-dev libbpf-dev libelf-dev linux-libc-dev m4 make pkg-config zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin finwheel \
 && install -s -D target/release/finwheel /out/finwheel

FROM docker.io/library/debian:bookworm-slim
# What the ring library links: libelf, and zlib with it.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libelf1 zlib1g \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/finwheel /usr/local/bin/finwheel
COPY config/finwheel.toml /usr/share/doc/finwheel/finwheel.toml
# The configuration is mounted at /etc/finwheel/finwheel.toml. SIGTERM drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["finwheel"]
CMD ["run"]
