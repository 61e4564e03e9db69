#!/bin/sh
# Builds, pushes and signs the three images. images.sh ghcr.io/OWNER 1.2.3
# Their base is resolved to a digest once, so that all three have the same one, and the attestation names it.
set -eu
cd "$(dirname "$0")/../.."
base=$(sed -n 's/^ARG BASE=//p' Dockerfile)
digest=$(docker buildx imagetools inspect "$base" --format '{{.Manifest.Digest}}')
case "$digest" in
    sha256:*) ;;
    *) echo "The registry gave no digest for $base: $digest" >&2; exit 1 ;;
esac
# Only the container driver writes attestations.
docker buildx create --name release --driver docker-container --use
metadata=$(mktemp)
for target in operator agent claude; do
    case "$target" in
        claude) name=workitem-claude ;;
        *) name=workitem-$target ;;
    esac
    docker buildx build . --target "$target" --tag "$1/$name:$2" --build-arg "BASE=$base@$digest" \
        --provenance=mode=max --sbom=true --push --metadata-file "$metadata"
    pushed=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["containerimage.digest"])' "$metadata")
    cosign sign --yes "$1/$name@$pushed"
    echo "$1/$name:$2@$pushed"
done
