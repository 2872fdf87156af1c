#!/usr/bin/env bash
# infra/docker.sh COMMAND…: runs COMMAND with a Docker engine: the one that answers, or else one of its own, on its own
# socket, which ends with COMMAND, or with this script however it ends. What that one built is kept in .cache/docker.
# The bridge docker0 and its firewall rules stay behind, as Docker leaves them.
# Exit status: COMMAND's; 69, with the reason on stderr, where there is no engine.
set -euo pipefail

unavailable() {
    echo "no Docker engine: $1" >&2
    exit 69
}

if docker info >/dev/null 2>&1; then
    exec "$@"
fi
[ "$(id -u)" = 0 ] || unavailable 'none answers, and starting one takes root'
for command in docker dockerd iptables setpriv; do
    command -v "$command" >/dev/null || unavailable "none answers, and $command is missing: make test-deps installs it"
done

data=$(realpath "$(dirname "$0")/..")/.cache/docker
mkdir -p "$data"
exec 9>"$data.lock"
flock 9 # one engine at a time may have that folder

run=$(mktemp -d) # a path short enough for a socket
finish() {
    kill "$engine" 2>/dev/null && wait "$engine"
    rm -rf "$run"
} 2>/dev/null
trap finish EXIT
reason() {
    grep --max-count=1 'failed to start daemon' "$run/log" || tail -n 1 "$run/log"
}

export DOCKER_HOST=unix://$run/docker.sock
# overlay2, or nothing: the storage that Docker falls back on copies every layer whole.
setpriv --pdeathsig TERM dockerd --host "$DOCKER_HOST" --data-root "$data" --exec-root "$run/exec" \
    --pidfile "$run/pid" --storage-driver overlay2 --bip 172.31.250.1/24 >"$run/log" 2>&1 9>&- &
engine=$!
for _ in {1..120}; do
    if docker info >/dev/null 2>&1; then
        "$@" 9>&-
        exit
    fi
    kill -0 "$engine" 2>/dev/null || unavailable "dockerd ended: $(reason)"
    sleep 0.5
done
unavailable "dockerd did not answer within a minute: $(reason)"
