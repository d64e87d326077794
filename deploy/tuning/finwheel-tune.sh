#!/usr/bin/env bash
# Sets up a host and an interface for finwheel, explains each setting, and can undo it.
#
#   finwheel-tune.sh show  IFACE       what is, what would be, and why; changes nothing
#   finwheel-tune.sh apply IFACE       sets it, and keeps what was in /run/finwheel-tune/IFACE (root)
#   finwheel-tune.sh undo  IFACE       puts back what was (root)
#
# A setting that the machine or the driver does not have is passed over. Nothing outlives a restart of the machine: run it at
# start (ExecStartPre=+ of the unit), or put what you like of it into sysctl.d and your network configuration.
# `finwheel doctor` finds what is left to do: CPUs to isolate, NUMA, the MTU.
set -euo pipefail

verb=${1:-}
iface=${2:-}
case $verb in show | apply | undo) ;; *) verb= ;; esac
if [ -z "$verb" ] || [[ ! $iface =~ ^[^[:space:]/:]{1,15}$ ]]; then
    echo "usage: ${0##*/} show|apply|undo IFACE" >&2
    exit 2
fi
kept=${FINWHEEL_TUNE_DIR:-/run/finwheel-tune}/$iface

ip link show dev "$iface" >/dev/null 2>&1 || { echo "${0##*/}: there is no interface $iface" >&2; exit 1; }

# Each setting: a name, the value it is to have, how it is read and set ($1), and why.

offload() { { ethtool -k "$iface" 2>/dev/null || true; } | awk -v f="$1:" '$1 == f && $3 != "[fixed]" { print $2 }'; }
# $1: RX or TX; $2: max or now.
ring() {
    { ethtool -g "$iface" 2>/dev/null || true; } |
        awk -v ring="$1:" -v which="$2" \
            '/^Pre-set/ { part = "max" } /^Current/ { part = "now" } $1 == ring && part == which { print $2 }'
}

read_lro() { offload large-receive-offload; }
set_lro() { ethtool -K "$iface" lro "$1"; }
read_gro_hw() { offload rx-gro-hw; }
set_gro_hw() { ethtool -K "$iface" rx-gro-hw "$1"; }
read_rxvlan() { offload rx-vlan-offload; }
set_rxvlan() { ethtool -K "$iface" rxvlan "$1"; }
read_rx_ring() { ring RX now; }
set_rx_ring() { ethtool -G "$iface" rx "$1"; }
read_tx_ring() { ring TX now; }
set_tx_ring() { ethtool -G "$iface" tx "$1"; }
read_sysctl() { cat "/proc/sys/$1" 2>/dev/null | tr '\t' ' ' || true; }
read_jit() { read_sysctl net/core/bpf_jit_enable; }
set_jit() { echo "$1" >/proc/sys/net/core/bpf_jit_enable; }
read_ports() { read_sysctl net/ipv4/ip_local_port_range; }
set_ports() { echo "$1" >/proc/sys/net/ipv4/ip_local_port_range; }
read_defer() { cat "/sys/class/net/$iface/napi_defer_hard_irqs" 2>/dev/null || true; }
set_defer() { echo "$1" >"/sys/class/net/$iface/napi_defer_hard_irqs"; }
read_flush() { cat "/sys/class/net/$iface/gro_flush_timeout" 2>/dev/null || true; }
set_flush() { echo "$1" >"/sys/class/net/$iface/gro_flush_timeout"; }
thp=/sys/kernel/mm/transparent_hugepage/enabled
read_thp() { sed -n 's/.*\[\(.*\)\].*/\1/p' "$thp" 2>/dev/null || true; }
set_thp() { echo "$1" >"$thp"; }

# The larger of what is and what is asked for, within what the driver can.
ring_wanted() {
    local now max
    now=$(ring "$1" now) max=$(ring "$1" max)
    [[ $now =~ ^[0-9]+$ && $max =~ ^[0-9]+$ ]] || return 0
    local wanted=$((max < 4096 ? max : 4096))
    echo $((now > wanted ? now : wanted))
}

settings() {
    cat <<LIST
lro|off|merging of segments by the NIC: what it makes does not fit a frame, and drivers refuse native XDP with it
gro_hw|off|the same, by hardware GRO
rxvlan|off|taking VLAN tags off: a native XDP program would take tagged frames for untagged ones
rx_ring|$(ring_wanted RX)|descriptors of a receive queue: too few, and a burst is lost while the worker sends; more cost cache
tx_ring|$(ring_wanted TX)|descriptors of a transmit queue: too few, and answers wait
jit|1|compiling of BPF programs: interpreted, the one that sees every frame is several times slower
ports|32768 60999|local ports of the kernel's own connections: apart from 16384 to 32767, which finwheel's client role claims
defer|2|polls without work before interrupts come back: fewer interrupts under load (Documentation/networking/napi.rst)
flush|200000|nanoseconds between such polls; the longest that a frame waits when the worker sleeps
thp|$([ "$(read_thp)" = always ] && echo always || echo madvise)|huge pages for who asks: tables of millions of records miss the TLB less
LIST
}

# Puts one setting to a value. Complains and goes on, for drivers refuse what they cannot.
put() {
    if ! "set_$1" "$2" 2>/dev/null; then
        echo "$1: not set to $2: refused" >&2
        return 1
    fi
}

show() {
    local name wanted why now
    while IFS='|' read -r name wanted why; do
        now=$("read_$name")
        if [ -z "$now" ] || [ -z "$wanted" ]; then
            printf '%-8s not to be had here\n' "$name"
        elif [ "$now" = "$wanted" ]; then
            printf '%-8s %s: as it should be\n' "$name" "$now"
        else
            printf '%-8s %s -> %s: %s\n' "$name" "$now" "$wanted" "$why"
        fi
    done < <(settings)
}

apply() {
    local name wanted why now
    mkdir -p "$kept"
    while IFS='|' read -r name wanted why; do
        now=$("read_$name")
        [ -n "$now" ] && [ -n "$wanted" ] && [ "$now" != "$wanted" ] || continue
        put "$name" "$wanted" || continue
        # What was there before the first time is what undo brings back.
        [ -e "$kept/$name" ] || printf '%s\n' "$now" >"$kept/$name"
        printf '%-8s %s -> %s: %s\n' "$name" "$now" "$wanted" "$why"
    done < <(settings)
}

undo() {
    local file name was
    [ -d "$kept" ] || { echo "nothing to undo for $iface" >&2; return; }
    for file in "$kept"/*; do
        [ -e "$file" ] || continue
        name=${file##*/}
        was=$(cat "$file")
        declare -F "set_$name" >/dev/null || continue
        put "$name" "$was" || continue
        rm -f "$file"
        printf '%-8s back to %s\n' "$name" "$was"
    done
    rmdir "$kept" 2>/dev/null || echo "not everything could be put back; see $kept" >&2
}

"$verb"
