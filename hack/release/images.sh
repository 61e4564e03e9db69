#!/bin/sh
# Builds, pushes and signs the three images. images.sh ghcr.io/OWNER 1.2.3
# On the base that the Dockerfile names by its digest, so that all three have the same one and a later build has it too.
set -eu
cd "$(dirname "$0")/../.."
# An owner's name may have capitals, an image's may not.
registry=$(echo "$1" | tr '[:upper:]' '[:lower:]')
base=$(sed -n 's/^ARG BASE=//p' Dockerfile)
if ! echo "$base" | grep -Eqx '[^@]+:[^@:/]+@sha256:[0-9a-f]{64}'; then
    echo "The Dockerfile's ARG BASE is $base, a release wants NAME:TAG@sha256:DIGEST: commit the digest that" \
        "docker buildx imagetools inspect NAME:TAG shows." >&2
    exit 1
fi
# Only the container driver writes attestations.
docker buildx create --name release --driver docker-container --use
metadata=$(mktemp)
for target in operator agent claude; do
    case "$target" in
        claude) name=workitem-claude ;;
        *) name=workitem-$target ;;
    esac
    docker buildx build . --target "$target" --tag "$registry/$name:$2" \
        --platform linux/amd64,linux/arm64 --provenance=mode=max --sbom=true --push --metadata-file "$metadata"
    pushed=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["containerimage.digest"])' "$metadata")
    cosign sign --yes "$registry/$name@$pushed"
    echo "$registry/$name:$2@$pushed"
done
