#!/bin/sh
# Writes the digest that the Dockerfile's base has now into hack/release/base.digest: to be looked at and committed.
# Wants docker and the registry. A release builds on that digest, whatever the tag means by then.
set -eu
cd "$(dirname "$0")/../.."
base=$(sed -n 's/^ARG BASE=//p' Dockerfile)
digest=$(docker buildx imagetools inspect "$base" --format '{{.Manifest.Digest}}')
case "$digest" in
    sha256:*) ;;
    *) echo "The registry gave no digest for $base: $digest" >&2; exit 1 ;;
esac
echo "$base@$digest" > hack/release/base.digest
cat hack/release/base.digest
