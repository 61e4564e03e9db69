"""A pod that prints what is posted to it, a line for each: the other end of channels without a stand-in."""

from __future__ import annotations

from tests.e2e.lab import JSON

PORT = 8080
_PROGRAM = f'''
import http.server

class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["Content-Length"])).decode(), flush=True)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        """What is posted, and nothing else."""

http.server.HTTPServer(("", {PORT}), Receiver).serve_forever()
'''


def manifests(image: str) -> list[JSON]:
    """The pod and its Service, both named `receiver`, by an image that has Python."""
    labels = {"app": "receiver"}
    container = {
        "name": "receiver",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", _PROGRAM],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 0,
    }
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "receiver", "labels": labels}, "spec": pod},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "receiver"},
            "spec": {"selector": labels, "ports": [{"port": PORT}]},
        },
    ]
