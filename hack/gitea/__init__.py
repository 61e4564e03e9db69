"""A real Gitea for tests and the demo: a process on loopback, or a Deployment in a cluster.

What the operator promises of a forge (one pull request, one merge, nothing merged past a red check) is only worth
something against a server that has its own opinions. See README.md for how to use it.
"""
