#!/usr/bin/env bash
# infra/base_image.sh TAG: makes a base for the image where no registry can be reached, unless TAG is there already.
# Like AWS's it has Python 3.13, pip and Lambda's runtime client as its entry point; it is Debian 13, made by debootstrap.
# Takes root and a Docker engine (infra/docker.sh infra/base_image.sh TAG). About two minutes; 180 MB.
set -euo pipefail

tag=$1
if docker image inspect "$tag" >/dev/null 2>&1; then
    exit
fi
[ "$(id -u)" = 0 ] || { echo 'debootstrap takes root' >&2; exit 69; }
command -v debootstrap >/dev/null || { echo 'debootstrap is missing: make test-deps installs it' >&2; exit 69; }
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT

# In a mount namespace: what debootstrap mounts is gone when it ends, however it ends.
unshare --mount debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates trixie "$root"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" # this machine's: it may stand behind a proxy with its own
cp "$(dirname "$0")/base-requirements.txt" "$root/tmp/"
chroot "$root" python3 -m venv /opt/python
chroot "$root" /opt/python/bin/python -m pip install --quiet --no-cache-dir --require-hashes -r /tmp/base-requirements.txt
rm -rf "$root"/tmp/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*

tar --directory "$root" --create . | docker import \
    --change 'ENV PATH=/opt/python/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENTRYPOINT ["python3", "-m", "awslambdaric"]' \
    - "$tag"
