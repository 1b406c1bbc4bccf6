{{/* Names of everything start with it: the release's name, so that `helm install fleet` gives fleet-ingest-0. */}}
{{- define "fleet.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects the pods of a component; it never changes over the life of a release. */}}
{{- define "fleet.selector" -}}
app.kubernetes.io/name: mqtt-fleet
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "fleet.labels" -}}
{{ include "fleet.selector" . }}
app.kubernetes.io/part-of: mqtt-fleet
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The image of one of our programs. */}}
{{- define "fleet.image" -}}
{{- $image := .root.Values.image -}}
{{- printf "%s/%s:%s" $image.registry .program (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}

{{/* Accounts of the broker that this release uses, one a line: the service and the key of its values. */}}
{{- define "fleet.accounts" -}}
accounts:
  {{- if .Values.ingest.enabled }}
  - ingest
  {{- end }}
  {{- if .Values.alerting.enabled }}
  - alerting
  {{- end }}
  {{- if .Values.statusTracker.enabled }}
  - status-tracker
  {{- end }}
  {{- if .Values.bridge.enabled }}
  - bridge
  {{- end }}
  {{- if not .Values.devices.accountsSecret }}
  - device-sim
  {{- end }}
  - operator
{{- end -}}

{{/* The Secret that holds something: one of credentials.secretNames, else the chart's own. */}}
{{- define "fleet.secretName" -}}
{{- $given := index .root.Values.credentials.secretNames .key -}}
{{- default (printf "%s-%s" (include "fleet.fullname" .root) .key) $given -}}
{{- end -}}

{{- define "fleet.broker.tls" -}}
{{- if .Values.emqx.enabled -}}
{{- if .Values.emqx.tls.enabled -}}true{{- end -}}
{{- else if hasPrefix "mqtts://" .Values.broker.external.url -}}true{{- end -}}
{{- end -}}

{{- define "fleet.broker.url" -}}
{{- if .Values.emqx.enabled -}}
{{- if .Values.emqx.tls.enabled -}}
mqtts://{{ include "fleet.fullname" . }}-emqx:8883
{{- else -}}
mqtt://{{ include "fleet.fullname" . }}-emqx:1883
{{- end -}}
{{- else -}}
{{- .Values.broker.external.url -}}
{{- end -}}
{{- end -}}

{{- define "fleet.broker.port" -}}
{{- $url := include "fleet.broker.url" . -}}
{{- $given := regexFind ":[0-9]+$" (trimSuffix "/" $url) | trimPrefix ":" -}}
{{- default (hasPrefix "mqtts://" $url | ternary "8883" "1883") $given -}}
{{- end -}}

{{/* The Secret with the authority that the broker's certificate is checked against; empty: the system's. */}}
{{- define "fleet.broker.caSecret" -}}
{{- if .Values.emqx.enabled -}}
{{- if .Values.emqx.tls.enabled -}}{{- include "fleet.secretName" (dict "root" . "key" "emqx-tls") -}}{{- end -}}
{{- else -}}{{- .Values.broker.external.caSecret -}}{{- end -}}
{{- end -}}

{{- define "fleet.database.url" -}}
{{- $database := .Values.database -}}
{{- if eq $database.type "sqlite" -}}
sqlite:///data/fleet.db
{{- else if eq $database.type "postgresql" -}}
postgres://fleet@{{ include "fleet.fullname" . }}-postgresql:5432/fleet
{{- else -}}
{{- with $database.external -}}
postgres://{{ .user }}@{{ .host }}:{{ .port }}/{{ .name }}{{ with .parameters }}?{{ . }}{{ end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "fleet.database.secret" -}}
{{- if eq .Values.database.type "postgresql" -}}
{{- include "fleet.secretName" (dict "root" . "key" "postgresql") -}}
{{- else if eq .Values.database.type "external" -}}
{{- .Values.database.external.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "fleet.database.secretKey" -}}
{{- eq .Values.database.type "external" | ternary .Values.database.external.secretKey "password" -}}
{{- end -}}

{{- define "fleet.otlp" -}}
{{- if .Values.tracing.endpoint -}}
{{- .Values.tracing.endpoint -}}
{{- else if .Values.collector.enabled -}}
http://{{ include "fleet.fullname" . }}-collector:4318
{{- end -}}
{{- end -}}

{{/* Whether a component has several pods, now or by autoscaling. */}}
{{- define "fleet.several" -}}
{{- $scaling := default dict .autoscaling -}}
{{- $keda := default dict .keda -}}
{{- if $scaling.enabled -}}
{{- if gt (int $scaling.minReplicas) 1 -}}true{{- end -}}
{{- else if $keda.enabled -}}
{{- if gt (int $keda.minReplicas) 1 -}}true{{- end -}}
{{- else if gt (int .replicas) 1 -}}true{{- end -}}
{{- end -}}
