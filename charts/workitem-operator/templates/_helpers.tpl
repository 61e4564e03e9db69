{{- define "workitems.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The release's name, unless it says what this is already. */}}
{{- define "workitems.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "workitems.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "workitems.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Names of cluster-wide objects: two releases in two namespaces must not share them. */}}
{{- define "workitems.clustername" -}}
{{- $full := include "workitems.fullname" . -}}
{{- if eq $full .Release.Namespace }}{{ $full }}{{ else }}{{ printf "%s-%s" .Release.Namespace $full }}{{ end }}
{{- end }}

{{- define "workitems.selector" -}}
app.kubernetes.io/name: {{ include "workitems.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "workitems.labels" -}}
{{ include "workitems.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: workitem-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "workitems.serviceaccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "workitems.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* repository:tag, or repository@digest; takes (list image chart). */}}
{{- define "workitems.image" -}}
{{- $image := index . 0 -}}
{{- $chart := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $chart.AppVersion $image.tag }}
{{- end }}
{{- end }}

{{/* Namespaces where runs are, as JSON: the served ones; none are known where all are served. */}}
{{- define "workitems.runnamespaces" -}}
{{- concat .Values.watchNamespaces .Values.networkPolicy.runs.namespaces | uniq | sortAlpha | toJson }}
{{- end }}

{{/* Where the world reaches the webhooks: as given, else by the host of the Ingress or the route. */}}
{{- define "workitems.webhookurl" -}}
{{- if .Values.webhooks.url -}}
{{ .Values.webhooks.url }}
{{- else if and .Values.webhooks.host (or .Values.webhooks.ingress.enabled .Values.webhooks.httpRoute.enabled) -}}
{{- $plain := and .Values.webhooks.ingress.enabled (not .Values.webhooks.ingress.tlsSecretName) -}}
{{ ternary "http" "https" $plain }}://{{ .Values.webhooks.host }}
{{- end }}
{{- end }}
