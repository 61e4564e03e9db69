"""The demo: a work item through all six agents on a real cluster, with a git server, an approval and one rework."""
