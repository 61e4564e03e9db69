"""The matrix: values that people give, each a reason why some template looks different."""

from __future__ import annotations

from typing import Any

MATRIX: dict[str, dict[str, Any]] = {
    "none": {},
    "one namespace": {"watchNamespaces": ["team-a"]},
    "several namespaces, their own among them": {"watchNamespaces": ["team-a", "team-b", "workitem-operator"]},
    "nothing but the operator": {
        "crds": {"install": False},
        "pipelines": {"default": {"create": False}},
        "rbac": {"create": False, "people": {"create": False}},
        "serviceAccount": {"create": False, "name": "given"},
        "admission": {"decisions": False, "agents": False},
        "networkPolicy": {"operator": False, "runs": {"enabled": False}},
    },
    "images by digest, from a registry with a password": {
        "image": {"repository": "registry.example.com:5000/operator", "digest": f"sha256:{'a' * 64}"},
        "agentImage": {"repository": "registry.example.com:5000/agent", "tag": "1.2"},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "placed and bounded": {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}
                    ]
                }
            }
        },
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
        ],
        "priorityClassName": "system-cluster-critical",
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
        "podDisruptionBudget": {"enabled": True, "maxUnavailable": "50%"},
        "podAnnotations": {"note": "x"},
        "podLabels": {"team": "platform"},
        "serviceAccount": {"annotations": {"iam.example.com/role": "x"}},
    },
    "settings, environment and files of the site": {
        "settings": {"sweepSeconds": 60, "logLevel": "debug", "runUid": "", "workers": "4", "runnerMemory": "2Gi"},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}],
        "extraEnvFrom": [{"configMapRef": {"name": "site"}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "corporate-ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/certs", "readOnly": True}],
    },
    # OpenShift gives each namespace users above a thousand million.
    "large numbers": {"settings": {"runUid": 1000650000, "runGid": 1000650000, "sweepSeconds": 90.5}},
    "secrets by name, bridges, other egress": {
        "watchNamespaces": ["team-a"],
        "rbac": {"secretNames": ["shop-git", "shop-gitea"], "people": {"aggregate": False}},
        "admission": {
            "bridges": ["system:serviceaccount:chat:bot"],
            "trustedServiceAccounts": ["system:serviceaccount:team-a:flux"],
            "trustElsewhere": False,
        },
        "networkPolicy": {
            "runs": {
                "dns": {"to": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}], "ports": [53, 5353]},
                "allow": [{"ipBlock": {"cidr": "10.1.2.0/24"}}],
            }
        },
    },
    "all namespaces, runs bounded in some": {"networkPolicy": {"runs": {"namespaces": ["team-a", "team-b"]}}},
    "a key for the model": {
        "modelCredentials": {"secretName": "model", "authToken": "token", "baseURL": "https://models.example.com"},
        "claudeImage": {"repository": "registry.example.com/claude", "tag": "2"},
    },
    "a second one stands by": {"replicas": 2, "podDisruptionBudget": {"enabled": True}},
    "webhooks by an Ingress": {
        "webhooks": {
            "enabled": True,
            "host": "workitems.example.com",
            "ingress": {"enabled": True, "className": "nginx", "tlsSecretName": "tls", "annotations": {"a": "b"}},
        }
    },
    "webhooks by a route, two operators": {
        "replicas": 2,
        "webhooks": {
            "enabled": True,
            "host": "workitems.example.com",
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}]},
        },
    },
    "watched": {
        "monitoring": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "alerts": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboard": {"enabled": True},
        }
    },
    "another Pipeline": {"pipelines": {"default": {"spec": {"limits": {"maxConcurrentRuns": 2}, "queueName": "q"}}}},
    "other agents": {
        "pipelines": {
            "default": {
                "spec": {
                    "agentDefaults": {"claudeCode": {"model": "opus"}, "timeout": "1h"},
                    "agents": {
                        "developer": {"resources": {"limits": {"memory": "4Gi", "cpu": 2}}, "env": [{"name": "A"}]}
                    },
                }
            }
        }
    },
}
