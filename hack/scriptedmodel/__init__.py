"""A stand-in for a model's Messages API: scripted answers, so that the real Claude Code CLI can be run without a key.

`server.py` is one file with nothing but the standard library because it travels into a cluster as a ConfigMap.
"""
