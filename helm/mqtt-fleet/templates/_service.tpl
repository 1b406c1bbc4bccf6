{{/*
One of our programs, by "fleet.workload". Takes a dict: root, component, values, and as text env, ports, mounts, volumes,
claims, services, args, init beyond what every program has. `database` says whether it opens the store, `account` (true without)
whether it has one at the broker.
*/}}
{{- define "fleet.service" -}}
{{- $root := .root -}}
{{- $drain := int .values.drainSeconds -}}
{{- $preStop := int (default 0 .preStopSeconds) -}}
{{- $sqlite := and .database (eq $root.Values.database.type "sqlite") -}}
{{- $affinity := "" -}}
{{- if and $sqlite (ne .component "ingest") -}}
{{- /* The file is on a volume of one node: whoever opens it runs where ingest does. */ -}}
{{- $affinity = printf "podAffinity:\n  requiredDuringSchedulingIgnoredDuringExecution:\n    - topologyKey: kubernetes.io/hostname\n      labelSelector:\n        matchLabels:\n%s" (include "fleet.selector" (dict "root" $root "component" "ingest") | indent 10) -}}
{{- end -}}
{{- include "fleet.workload" (dict
  "root" $root "component" .component "values" .values
  "image" (include "fleet.image" (dict "root" $root "program" .component))
  "graceSeconds" (add $drain $preStop 10)
  "args" .args
  "env" (include "fleet.service.env" .)
  "ports" (printf "- { name: admin, containerPort: 9100 }%s" (empty .ports | ternary "" (printf "\n%s" .ports)))
  "probes" (include "fleet.service.probes" .)
  "lifecycle" (empty $preStop | ternary "" (printf "preStop: { sleep: { seconds: %d } }" $preStop))
  "mounts" (include "fleet.service.mounts" . | trim)
  "volumes" (include "fleet.service.volumes" . | trim)
  "init" .init "claims" .claims "services" .services "annotations" .annotations "affinity" $affinity
) -}}
{{- end -}}

{{- define "fleet.service.account" -}}
{{- if or (not (hasKey . "account")) .account -}}true{{- end -}}
{{- end -}}

{{- define "fleet.service.env" -}}
{{- $root := .root -}}
- name: POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- { name: MQTT_URL, value: {{ include "fleet.broker.url" $root | quote }} }
- name: POD_INDEX
  valueFrom: { fieldRef: { fieldPath: "metadata.labels['apps.kubernetes.io/pod-index']" } }
# Stable: a pod that comes back finds its session, and what waits there. It starts with the account's name.
- { name: MQTT_CLIENT_ID, value: "{{ .component }}-{{ include "fleet.fullname" $root }}-$(POD_INDEX)" }
{{- if include "fleet.service.account" . }}
- name: MQTT_USERNAME
  valueFrom: { secretKeyRef: { name: {{ include "fleet.secretName" (dict "root" $root "key" (printf "mqtt-%s" .component)) }}, key: username } }
- { name: MQTT_PASSWORD_FILE, value: /etc/fleet/mqtt/password }
{{- end }}
{{- if include "fleet.broker.caSecret" $root }}
- { name: MQTT_CA_FILE, value: /etc/fleet/broker-ca/ca.crt }
{{- end }}
{{- if .database }}
- { name: DATABASE_URL, value: {{ include "fleet.database.url" $root | quote }} }
{{- if include "fleet.database.secret" $root }}
- { name: DATABASE_PASSWORD_FILE, value: /etc/fleet/database/password }
{{- end }}
{{- end }}
- { name: ADMIN_ADDR, value: "0.0.0.0:9100" }
- { name: DRAIN_TIMEOUT, value: {{ printf "%ds" (int .values.drainSeconds) }} }
# A pod that came up before its broker is not to wait a minute for it.
- { name: MQTT_MAX_RECONNECT_DELAY, value: 10s }
- { name: LOG, value: {{ $root.Values.logs.filter | quote }} }
- { name: LOG_FORMAT, value: {{ $root.Values.logs.format }} }
{{- with include "fleet.otlp" $root }}
- { name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }} }
- { name: OTEL_EXPORTER_OTLP_PROTOCOL, value: http/protobuf }
- { name: OTEL_TRACES_SAMPLER, value: parentbased_traceidratio }
- { name: OTEL_TRACES_SAMPLER_ARG, value: {{ $root.Values.tracing.ratio | quote }} }
- { name: OTEL_RESOURCE_ATTRIBUTES, value: "k8s.namespace.name={{ $root.Release.Namespace }},k8s.pod.name=$(POD_NAME),service.instance.id=$(POD_NAME)" }
{{- end }}
{{- with .env }}
{{ . | trim }}
{{- end }}
{{- end -}}

{{- define "fleet.service.probes" -}}
startupProbe:
  httpGet: { path: /livez, port: admin }
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: { path: /readyz, port: admin }
  periodSeconds: 3
  failureThreshold: 2
livenessProbe:
  httpGet: { path: /livez, port: admin }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{- define "fleet.service.mounts" -}}
{{- if include "fleet.service.account" . }}
- { name: mqtt, mountPath: /etc/fleet/mqtt, readOnly: true }
{{- end }}
{{- if include "fleet.broker.caSecret" .root }}
- { name: broker-ca, mountPath: /etc/fleet/broker-ca, readOnly: true }
{{- end }}
{{- if and .database (include "fleet.database.secret" .root) }}
- { name: database, mountPath: /etc/fleet/database, readOnly: true }
{{- end }}
{{- if and .database (eq .root.Values.database.type "sqlite") }}
- { name: data, mountPath: /data }
{{- end }}
{{- with .mounts }}
{{ . | trim }}
{{- end }}
{{- end -}}

{{- define "fleet.service.volumes" -}}
{{- if include "fleet.service.account" . }}
- name: mqtt
  secret:
    secretName: {{ include "fleet.secretName" (dict "root" .root "key" (printf "mqtt-%s" .component)) }}
    items: [{ key: password, path: password }]
    defaultMode: 0440
{{- end }}
{{- with include "fleet.broker.caSecret" .root }}
- name: broker-ca
  secret:
    secretName: {{ . }}
    items: [{ key: ca.crt, path: ca.crt }]
    defaultMode: 0440
{{- end }}
{{- if .database }}
{{- with include "fleet.database.secret" .root }}
- name: database
  secret:
    secretName: {{ . }}
    items: [{ key: {{ include "fleet.database.secretKey" $.root }}, path: password }]
    defaultMode: 0440
{{- end }}
{{- if eq .root.Values.database.type "sqlite" }}
- name: data
  persistentVolumeClaim: { claimName: {{ include "fleet.fullname" .root }}-data }
{{- end }}
{{- end }}
{{- with .volumes }}
{{ . | trim }}
{{- end }}
{{- end -}}


{{/* What connects `fleet` as the operator: variables and mount; the volume is called operator. */}}
{{- define "fleet.operator.env" -}}
- { name: MQTT_URL, value: {{ include "fleet.broker.url" .root | quote }} }
- { name: MQTT_CLIENT_ID, value: {{ .client }} }
- name: MQTT_USERNAME
  valueFrom: { secretKeyRef: { name: {{ include "fleet.secretName" (dict "root" .root "key" "mqtt-operator") }}, key: username } }
- { name: MQTT_PASSWORD_FILE, value: /etc/fleet/operator/password }
{{- if include "fleet.broker.caSecret" .root }}
- { name: MQTT_CA_FILE, value: /etc/fleet/broker-ca/ca.crt }
{{- end }}
{{- end -}}

{{- define "fleet.operator.mounts" -}}
- { name: operator, mountPath: /etc/fleet/operator, readOnly: true }
{{- if include "fleet.broker.caSecret" . }}
- { name: broker-ca, mountPath: /etc/fleet/broker-ca, readOnly: true }
{{- end }}
{{- end -}}

{{- define "fleet.operator.volume" -}}
- name: operator
  secret:
    secretName: {{ include "fleet.secretName" (dict "root" . "key" "mqtt-operator") }}
    items: [{ key: password, path: password }]
    defaultMode: 0440
{{- end -}}
