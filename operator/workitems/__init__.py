"""workitem-operator: carries software tasks from idea to merged code with coding agents, on Kubernetes."""

__version__ = "0.1.0"
