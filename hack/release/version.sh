#!/bin/sh
# Exits with 1 unless the tag names the version that pyproject.toml and the chart have. version.sh v1.2.3
set -eu
cd "$(dirname "$0")/../.."
python=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
chart=$(sed -n 's/^version: //p' charts/workitem-operator/Chart.yaml)
application=$(sed -n 's/^appVersion: //p' charts/workitem-operator/Chart.yaml)
for version in "$python" "$chart" "$application"; do
    if [ "$1" != "v$version" ]; then
        echo "The tag is $1, but pyproject.toml says $python and Chart.yaml says $chart and $application: make them agree." >&2
        exit 1
    fi
done
