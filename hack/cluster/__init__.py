"""A Kubernetes cluster for the demo and the tests, on whatever machine there is.

Three kinds, the first that fits: the kubeconfig context named in `WORKITEMS_CONTEXT`; a kind cluster where Docker
really runs; else a local cluster built from Go modules and Debian packages, which needs no Docker, no image registry
and no download of binaries.

`python -m hack.cluster up|down|status|env|images` is the command line; `hack.cluster.choose.current()` is the way in
for Python.
"""
