"""What the chart and the plain manifests are made of, generated from one source each; tests fail on drift."""
