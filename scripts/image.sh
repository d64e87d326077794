#!/usr/bin/env bash
# Builds the container image and tries it.
#
#   scripts/image.sh build     build `finwheel` from the Dockerfile
#   scripts/image.sh test      run it, with exactly the capabilities that deploy/README.md names, and close 1,000
#                              connections of the kernel's TCP against it (root)
#
# With a Docker engine, that is used. Otherwise buildah and podman, with a store of their own in target/image and nothing of
# the kernel but chroot and runc; such a machine often reaches no image registry either. Then the base image is made here
# from Debian's packages (debootstrap), and the binary is the one that cargo builds on this host, which has to be the same
# Debian (Dockerfile, BINARY=prebuilt).
set -euo pipefail

cd "$(dirname "$0")/.."
out=target/image
base=docker.io/library/debian:bookworm-slim
builder=docker.io/library/rust:1-bookworm
target=${CARGO_TARGET_DIR:-target}

say() { echo "image: $*" >&2; }
die() { say "$*"; exit 1; }

has_docker() { command -v docker >/dev/null && docker info >/dev/null 2>&1; }

# Sets `store`: where buildah and podman keep this project's images.
use_podman() {
    command -v buildah >/dev/null && command -v podman >/dev/null ||
        die "neither a Docker engine nor buildah and podman; scripts/setup.sh image installs the latter on Debian"
    mkdir -p "$out"
    store=(--root "$PWD/$out/store" --runroot "$PWD/$out/run" --storage-driver vfs)
}

have() { podman "${store[@]}" image exists "$1"; }

# Pulls an image, or fails within half a minute.
pull() { have "$1" || timeout 30 podman "${store[@]}" pull -q "$1" >/dev/null 2>&1; }

make_base() {
    pull "$base" && return
    command -v debootstrap >/dev/null || die "$base cannot be pulled, and there is no debootstrap to make it with"
    [ "$(id -u)" = 0 ] || die "$base cannot be pulled; to make it, debootstrap needs root"
    say "$base cannot be pulled: it is made of Debian's packages"
    rm -rf "$out/base"
    debootstrap --variant=minbase bookworm "$out/base" >"$out/debootstrap.log" ||
        die "debootstrap failed; see $out/debootstrap.log"
    tar -C "$out/base" -c . | podman "${store[@]}" import - "$base" >/dev/null
    rm -rf "$out/base"
}

# A binary built here runs in the image when it is made for the same C library.
prebuild() {
    (. /etc/os-release && [ "${VERSION_CODENAME:-}" = bookworm ]) ||
        die "no $builder, and this host is no Debian 12: its binaries may not run in $base"
    cargo build --release --locked --bin finwheel
    mkdir -p "$out"
    install -s "$target/release/finwheel" "$out/finwheel"
}

build() {
    if has_docker; then
        docker build -t finwheel .
        return
    fi
    use_podman
    local binary=source
    make_base
    pull "$builder" || binary=prebuilt
    [ $binary = source ] || prebuild
    buildah "${store[@]}" bud --isolation chroot --pull-never --build-arg BINARY=$binary -t finwheel .
    say "built, in $out/store; for another store: podman ${store[*]} save finwheel | podman load"
}

engine=()
extra=()
cleanup() {
    set +e
    if [ ${#engine[@]} -gt 0 ]; then
        # As init of its container, sleep takes no notice of SIGTERM.
        "${engine[@]}" kill "fw$$-net" >/dev/null 2>&1
        # One after the other: the first one lives in the namespace of the second.
        "${engine[@]}" rm -f "fw$$-server" >/dev/null 2>&1
        "${engine[@]}" rm -f "fw$$-net" >/dev/null 2>&1
    fi
    ip netns del "fw$$-0-client" 2>/dev/null
}

# The process of a container.
pid_of() { "${engine[@]}" inspect -f '{{.State.Pid}}' "$1"; }

try() {
    [ "$(id -u)" = 0 ] || die "the test makes a network namespace: it needs root"
    if has_docker; then
        engine=(docker)
    else
        use_podman
        engine=(podman "${store[@]}" --runtime runc --cgroup-manager cgroupfs)
        # Where the usual limits cannot be raised, podman's own would be refused. Its profile of system calls, as Debian 12
        # has it, grants bpf(2) to CAP_SYS_ADMIN and not to CAP_BPF; finwheel brings a filter of its own.
        extra=(--ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --security-opt seccomp=unconfined)
    fi
    "${engine[@]}" image inspect finwheel >/dev/null 2>&1 || die "there is no image; make image builds it"
    trap cleanup EXIT
    local net client="fw$$-0-client" shown
    mkdir -p "$out"
    cat >"$out/finwheel.toml" <<'TOML'
[interface]
name = "eth9"
[worker]
connections = 4096
half_open = 1024
time_wait = 65536
chunks = 4096
[[listener]]
name = "web"
address = "10.79.0.1:80"
service = "http"
TOML
    chmod 644 "$out/finwheel.toml"
    # A container that only holds the network namespace: the interface has to be there before finwheel is.
    "${engine[@]}" run -d --name "fw$$-net" --network none "${extra[@]}" --entrypoint sleep finwheel 600 >/dev/null
    net=$(pid_of "fw$$-net")
    ip netns add "$client"
    ip -n "$client" link add eth9 numrxqueues 1 numtxqueues 1 type veth peer name veth9 numrxqueues 1 numtxqueues 1
    ip -n "$client" link set eth9 netns "$net"
    ip -n "$client" address add 10.79.0.2/24 dev veth9
    ip -n "$client" link set veth9 up
    nsenter -t "$net" -n ip address add 10.79.0.1/24 dev eth9
    nsenter -t "$net" -n ip link set eth9 up
    "${engine[@]}" run -d --name "fw$$-server" --network "container:fw$$-net" "${extra[@]}" --read-only --cap-drop all \
        --cap-add NET_ADMIN --cap-add NET_RAW --cap-add BPF --cap-add PERFMON --cap-add IPC_LOCK \
        -v "$PWD/$out/finwheel.toml:/etc/finwheel/finwheel.toml:ro" finwheel >/dev/null
    local metrics=(nsenter -t "$net" -n curl -fsS -m 5)
    for _ in $(seq 100); do
        "${metrics[@]}" http://127.0.0.1:9464/readyz >/dev/null 2>&1 && break
        sleep 0.1
    done
    "${metrics[@]}" http://127.0.0.1:9464/readyz >/dev/null ||
        { "${engine[@]}" logs "fw$$-server" >&2; die "it is not ready"; }
    local server status
    server=$(pid_of "fw$$-server")
    status=$(cat "/proc/$server/status")
    grep -qE '^Uid:\s+65532' <<<"$status" || die "it does not run as user 65532"
    grep -qE '^CapEff:\s+0000000000000000' <<<"$status" || die "it has capabilities still"
    grep -qE '^Seccomp:\s+2' <<<"$status" || die "it has no filter of system calls"
    ip netns exec "$client" ab -q -n 1000 -c 20 http://10.79.0.1/ >"$out/ab.log" 2>&1 || { cat "$out/ab.log" >&2; die "ab failed"; }
    grep -E '^(Complete|Failed) requests' "$out/ab.log" >&2
    grep -qE '^Complete requests: +1000$' "$out/ab.log" && grep -qE '^Failed requests: +0$' "$out/ab.log" ||
        die "not every request was answered; see $out/ab.log"
    # Reports are a second apart.
    sleep 2
    shown=$("${metrics[@]}" http://127.0.0.1:9464/metrics)
    local closed reset
    closed=$(awk '/^finwheel_closes_total\{/ && !/path="(reset|timeout)"/ { n += $NF } END { print n + 0 }' <<<"$shown")
    reset=$(awk '/^finwheel_closes_total\{/ && /path="(reset|timeout)"/ { n += $NF } END { print n + 0 }' <<<"$shown")
    say "closed: $closed gracefully, $reset otherwise"
    [ "$closed" -ge 1000 ] && [ "$reset" = 0 ] || die "not every connection was closed gracefully"
    "${engine[@]}" stop -t 40 "fw$$-server" >/dev/null
    local code
    code=$("${engine[@]}" inspect -f '{{.State.ExitCode}}' "fw$$-server")
    "${engine[@]}" logs "fw$$-server" 2>&1 | tail -n 2 >&2
    [ "$code" = 0 ] || die "it ended with $code"
    say "1,000 connections closed, drained, exit code 0"
}

case ${1:-} in
    build) build ;;
    test) try ;;
    *) echo "usage: scripts/image.sh build|test" >&2; exit 2 ;;
esac
