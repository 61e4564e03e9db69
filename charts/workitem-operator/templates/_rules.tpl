{{/*
What the operator does to the API server, and nothing more: tests/e2e/test_rights.py compares this with the API server's audit log.
The same rules stand in a ClusterRole, or in a Role of each served namespace.
*/}}
{{- define "workitems.rules" -}}
# What people write, and where it is acknowledged.
- apiGroups: [workitems.dev]
  resources: [workitems, repositories, pipelines]
  verbs: [get, list, watch]
- apiGroups: [workitems.dev]
  resources: [decisions]
  verbs: [list, watch]
- apiGroups: [workitems.dev]
  resources: [workitems/status]
  verbs: [update]
- apiGroups: [workitems.dev]
  resources: [decisions, decisions/status]
  verbs: [patch]
# Issues of a tracker become WorkItems, which follow edits until they start; what is said there, or in a
# review in the forge, becomes Decisions.
- apiGroups: [workitems.dev]
  resources: [workitems]
  verbs: [create, patch]
- apiGroups: [workitems.dev]
  resources: [decisions]
  verbs: [create]
# What became of a webhook that it registers.
- apiGroups: [workitems.dev]
  resources: [repositories/status]
  verbs: [update]
# One Job a run; the Pod's end is the signal.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# For kubectl describe and alerts; nothing is decided from them.
- apiGroups: [""]
  resources: [events]
  verbs: [create]
# Worktree volumes, and the snapshot of an item's Pipeline. The garbage collector removes both.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [create]
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, create]
# A Repository's certificate authorities, and a team's own templates.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
# Never listed: the tokens of forge, tracker and notifiers. Git credentials are only looked for, and mounted where git runs.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
  {{- with .Values.rbac.secretNames }}
  resourceNames: {{ append . $.Values.modelCredentials.secretName | compact | uniq | toJson }}
  {{- end }}
{{- end }}

{{/* In the operator's own namespace: Pipelines that other namespaces fall back to, the built-in one, who leads. */}}
{{- define "workitems.ownrules" -}}
- apiGroups: [workitems.dev]
  resources: [pipelines]
  verbs: [get]
{{- if .Values.pipelines.default.create }}
- apiGroups: [workitems.dev]
  resources: [pipelines]
  verbs: [create]
- apiGroups: [workitems.dev]
  resources: [pipelines]
  resourceNames: [default]
  verbs: [patch]
{{- end }}
{{- if gt (int .Values.replicas) 1 }}
# The Service of webhooks follows the one that leads: it labels its own pod.
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "workitems.fullname" . }}]
  verbs: [get, update]
{{- end }}
{{- end }}
