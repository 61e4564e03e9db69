#!/bin/sh
# Packages the chart with the owner's images as its defaults, pushes and signs it. chart.sh ghcr.io/OWNER 1.2.3
set -eu
cd "$(dirname "$0")/../.."
# As in images.sh.
registry=$(echo "$1" | tr '[:upper:]' '[:lower:]')
folder=$(mktemp -d)
cp -R charts/workitem-operator "$folder/chart"
sed "s|repository: ghcr.io/workitems-dev/|repository: $registry/|" charts/workitem-operator/values.yaml > "$folder/chart/values.yaml"
helm lint --strict "$folder/chart"
helm package "$folder/chart" --destination "$folder"
helm push "$folder/workitem-operator-$2.tgz" "oci://$registry/charts" > "$folder/pushed" 2>&1 || {
    cat "$folder/pushed" >&2
    exit 1
}
cat "$folder/pushed"
digest=$(sed -n 's/^Digest: //p' "$folder/pushed")
if [ -z "$digest" ]; then
    echo "helm push names no digest to sign: see above." >&2
    exit 1
fi
cosign sign --yes "$registry/charts/workitem-operator@$digest"
