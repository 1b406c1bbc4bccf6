{{/* Combinations that cannot work, each refused with what to do. The form of single values is values.schema.json's. */}}
{{- define "fleet.validate" -}}
{{- $v := .Values -}}
{{- if and $v.emqx.enabled $v.broker.external.url -}}
{{- fail "broker.external.url and emqx.enabled name two brokers: set emqx.enabled=false to use yours, or leave the URL out" -}}
{{- end -}}
{{- if not (or $v.emqx.enabled $v.broker.external.url) -}}
{{- fail "there is no broker: set emqx.enabled=true, or broker.external.url to one of yours" -}}
{{- end -}}
{{- if and $v.broker.external.caSecret (not (hasPrefix "mqtts://" $v.broker.external.url)) -}}
{{- fail "broker.external.caSecret is for TLS: start broker.external.url with mqtts://, or leave the Secret out" -}}
{{- end -}}
{{- if eq $v.database.type "external" -}}
{{- if not (and $v.database.external.host $v.database.external.existingSecret) -}}
{{- fail "database.type=external needs database.external.host and database.external.existingSecret, the Secret with its password" -}}
{{- end -}}
{{- else if $v.database.external.host -}}
{{- fail (printf "database.external.host is set, but database.type is %s: set database.type=external to use it" $v.database.type) -}}
{{- end -}}
{{- if eq $v.database.type "sqlite" -}}
{{- if or (gt (int $v.ingest.replicas) 1) $v.ingest.autoscaling.enabled $v.ingest.keda.enabled -}}
{{- fail "SQLite is a file on the volume of one node, for one ingest: set ingest.replicas=1 without autoscaling, or database.type=postgresql" -}}
{{- end -}}
{{- if not $v.ingest.enabled -}}
{{- fail "with database.type=sqlite the other services run beside ingest: set ingest.enabled=true, or database.type=postgresql" -}}
{{- end -}}
{{- end -}}
{{- if and $v.postgresql.timescaledb (ne $v.database.type "postgresql") -}}
{{- fail "postgresql.timescaledb chooses the image of the chart's own PostgreSQL: set database.type=postgresql (an external one is used with TimescaleDB when the extension is there)" -}}
{{- end -}}
{{- if and $v.ingest.autoscaling.enabled $v.ingest.keda.enabled -}}
{{- fail "ingest.autoscaling and ingest.keda would scale against each other: enable one of them" -}}
{{- end -}}
{{- range $name, $scaling := dict "autoscaling" $v.ingest.autoscaling "keda" $v.ingest.keda -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "ingest.%s.minReplicas=%d is above maxReplicas=%d: lower the one or raise the other" $name (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- if and $v.bridge.enabled (not $v.bridge.kafkaBrokers) -}}
{{- fail "bridge.enabled needs bridge.kafkaBrokers, such as kafka:9092" -}}
{{- end -}}
{{- if and $v.bridge.enabled $v.networkPolicy.enabled -}}
{{- $open := list -}}
{{- range $v.bridge.kafkaPorts }}{{ $open = append $open (int .) }}{{ end -}}
{{- range splitList "," $v.bridge.kafkaBrokers -}}
{{- $port := regexFind "[0-9]+$" . | int -}}
{{- if not (has $port $open) -}}
{{- fail (printf "bridge.kafkaBrokers names port %d, and the network policies close it to bridge: add it to bridge.kafkaPorts" $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.tracing.endpoint $v.collector.enabled -}}
{{- fail "tracing.endpoint and collector.enabled name two collectors: to send on from the release's own, set collector.exportTo instead of tracing.endpoint" -}}
{{- end -}}
{{- if and $v.emqx.tls.plaintext (not $v.emqx.tls.enabled) -}}
{{- fail "emqx.tls.plaintext keeps 1883 open beside TLS: set emqx.tls.enabled=true, or leave it out (without TLS, 1883 is open)" -}}
{{- end -}}
{{- if and $v.networkPolicy.enabled $v.emqx.enabled (ne $v.emqx.service.type "ClusterIP") (not $v.networkPolicy.devicesFrom) -}}
{{- fail (printf "emqx.service.type=%s opens the broker to devices from outside, and the network policies close it to them: set networkPolicy.devicesFrom, such as [{ipBlock: {cidr: 0.0.0.0/0}}]" $v.emqx.service.type) -}}
{{- end -}}
{{- if and $v.networkPolicy.enabled $v.statusTracker.enabled (ne $v.statusTracker.service.type "ClusterIP") (not $v.networkPolicy.apiFrom) -}}
{{- fail (printf "statusTracker.service.type=%s opens the API to people from outside, and the network policies close it to them: set networkPolicy.apiFrom, such as [{ipBlock: {cidr: 10.0.0.0/8}}]" $v.statusTracker.service.type) -}}
{{- end -}}
{{- if hasPrefix (printf "alerting-%s-" (include "fleet.fullname" .)) $v.alerting.group -}}
{{- fail (printf "alerting.group=%s could be the client id of one of its pods: choose a name that does not start with alerting-%s-" $v.alerting.group (include "fleet.fullname" .)) -}}
{{- end -}}
{{- end -}}
