"""The operator under load: a real API server and etcd of the benchmark's own, and a driver that plays the kubelet.

    make bench-load

Nothing of the shared cluster is used or disturbed: the control plane lives in a temporary folder, on free loopback
ports, and is gone afterwards. Pods are played, so a run costs only what the operator makes of it.
"""
