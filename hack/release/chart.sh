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
pushed=$(helm push "$folder/workitem-operator-$2.tgz" "oci://$registry/charts" 2>&1)
echo "$pushed"
digest=$(echo "$pushed" | sed -n 's/^Digest: //p')
cosign sign --yes "$registry/charts/workitem-operator@$digest"
