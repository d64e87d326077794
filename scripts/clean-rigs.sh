#!/usr/bin/env bash
# Removes the network namespaces of rigs whose process is gone. Their names are fw<pid>-<n>-server, fw<pid>-<n>-client
# and fw<pid>-<n>-relay; every other name, and those of living processes, are left alone.
set -euo pipefail

removed=0
for path in /run/netns/fw*; do
    name=${path##*/}
    [[ $name =~ ^fw([0-9]+)-[0-9]+-(server|client|relay)$ ]] || continue
    [ -d "/proc/${BASH_REMATCH[1]}" ] && continue
    ip netns delete "$name"
    removed=$((removed + 1))
done
echo "$removed removed"
