{{/*
Settings of EMQX as variables, which come before its files. Sources: EMQX 5.8's configuration manual, and what was measured on
a real one: at its defaults it dropped 94 of 100 readings of a burst that it had acknowledged (docs/delivery.md).
*/}}
{{- define "fleet.emqx.env" -}}
{{- $full := include "fleet.fullname" . -}}
{{- $pods := printf "%s-emqx-pods.%s.svc.%s" $full .Release.Namespace .Values.clusterDomain -}}
{{- $secret := include "fleet.secretName" (dict "root" . "key" "emqx") -}}
{{- with .Values.emqx -}}
- name: POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
# The data folder belongs to the node's name, so the name must not follow the pod's address.
- { name: EMQX_NODE_NAME, value: "emqx@$(POD_NAME).{{ $pods }}" }
- name: EMQX_NODE__COOKIE
  valueFrom: { secretKeyRef: { name: {{ $secret }}, key: cookie } }
# `emqx ctl` wants to write a cookie of its own into the home folder.
- { name: HOME, value: /tmp }
{{- if gt (int .replicas) 1 }}
- { name: EMQX_CLUSTER__DISCOVERY_STRATEGY, value: dns }
- { name: EMQX_CLUSTER__DNS__RECORD_TYPE, value: srv }
- { name: EMQX_CLUSTER__DNS__NAME, value: {{ $pods }} }
{{- else }}
- { name: EMQX_CLUSTER__DISCOVERY_STRATEGY, value: manual }
{{- end }}
- { name: EMQX_LOG__CONSOLE__ENABLE, value: "true" }
- { name: EMQX_LOG__CONSOLE__LEVEL, value: warning }
- { name: EMQX_TELEMETRY__ENABLE, value: "false" }
# Dashboard and metrics: neither is open.
- { name: EMQX_DASHBOARD__DEFAULT_USERNAME, value: admin }
- name: EMQX_DASHBOARD__DEFAULT_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ $secret }}, key: dashboard-password } }
- { name: EMQX_PROMETHEUS__ENABLE_BASIC_AUTH, value: "true" }
# Who may connect: the accounts that the init container wrote. Those that are known already are left as they are.
- { name: EMQX_AUTHENTICATION__1__MECHANISM, value: password_based }
- { name: EMQX_AUTHENTICATION__1__BACKEND, value: built_in_database }
- { name: EMQX_AUTHENTICATION__1__ENABLE, value: "true" }
- { name: EMQX_AUTHENTICATION__1__USER_ID_TYPE, value: username }
- { name: EMQX_AUTHENTICATION__1__PASSWORD_HASH_ALGORITHM__NAME, value: sha256 }
- { name: EMQX_AUTHENTICATION__1__PASSWORD_HASH_ALGORITHM__SALT_POSITION, value: prefix }
- { name: EMQX_AUTHENTICATION__1__BOOTSTRAP_FILE, value: /run/fleet/accounts/users.csv }
- { name: EMQX_AUTHENTICATION__1__BOOTSTRAP_TYPE, value: plain }
# What they may do: what the file allows, and nothing else. A refused publish is answered with "not authorized".
- { name: EMQX_AUTHORIZATION__NO_MATCH, value: deny }
- { name: EMQX_AUTHORIZATION__DENY_ACTION, value: ignore }
- { name: EMQX_AUTHORIZATION__SOURCES__1__TYPE, value: file }
- { name: EMQX_AUTHORIZATION__SOURCES__1__ENABLE, value: "true" }
- { name: EMQX_AUTHORIZATION__SOURCES__1__PATH, value: {{ empty $.Values.devices.accountsSecret | ternary "/etc/fleet/acl/acl.conf" "/run/fleet/accounts/acl.conf" }} }
# Limits: what was acknowledged waits, and is not dropped.
- { name: EMQX_MQTT__MAX_INFLIGHT, value: {{ .limits.maxInflight | int | quote }} }
- { name: EMQX_MQTT__MAX_MQUEUE_LEN, value: {{ .limits.maxQueueLength | toString | quote }} }
- { name: EMQX_MQTT__MAX_AWAITING_REL, value: {{ .limits.maxAwaitingRelease | int | quote }} }
- { name: EMQX_FORCE_SHUTDOWN__MAX_MAILBOX_SIZE, value: {{ .limits.maxMailboxSize | int | quote }} }
- { name: EMQX_FORCE_SHUTDOWN__MAX_HEAP_SIZE, value: {{ .limits.maxHeapSize | quote }} }
- { name: EMQX_MQTT__SESSION_EXPIRY_INTERVAL, value: {{ .sessionExpiry | quote }} }
{{- if .durableSessions }}
- { name: EMQX_DURABLE_SESSIONS__ENABLE, value: "true" }
{{- end }}
- { name: EMQX_RETAINER__BACKEND__TYPE, value: built_in_database }
- { name: EMQX_RETAINER__BACKEND__STORAGE_TYPE, value: disc }
- { name: EMQX_MQTT__SHARED_SUBSCRIPTION_STRATEGY, value: {{ .sharedSubscription.strategy }} }
{{- range $group, $strategy := .sharedSubscription.groups }}
- { name: EMQX_BROKER__SHARED_SUBSCRIPTION_GROUP__{{ upper $group }}__STRATEGY, value: {{ $strategy }} }
{{- end }}
# Listeners. The certificate that EMQX brings is everybody's, so without one of its own there is no TLS.
- { name: EMQX_LISTENERS__TCP__DEFAULT__ENABLE, value: {{ or (not .tls.enabled) .tls.plaintext | quote }} }
- { name: EMQX_LISTENERS__SSL__DEFAULT__ENABLE, value: {{ .tls.enabled | quote }} }
- { name: EMQX_LISTENERS__WS__DEFAULT__ENABLE, value: {{ and .websocket (or (not .tls.enabled) .tls.plaintext) | quote }} }
- { name: EMQX_LISTENERS__WSS__DEFAULT__ENABLE, value: {{ and .websocket .tls.enabled | quote }} }
{{- if .tls.enabled }}
{{- range list "SSL" "WSS" }}
{{- if or (eq . "SSL") $.Values.emqx.websocket }}
- { name: EMQX_LISTENERS__{{ . }}__DEFAULT__SSL_OPTIONS__CACERTFILE, value: /etc/fleet/tls/ca.crt }
- { name: EMQX_LISTENERS__{{ . }}__DEFAULT__SSL_OPTIONS__CERTFILE, value: /etc/fleet/tls/tls.crt }
- { name: EMQX_LISTENERS__{{ . }}__DEFAULT__SSL_OPTIONS__KEYFILE, value: /etc/fleet/tls/tls.key }
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "fleet.emqx.ports" -}}
{{- with .Values.emqx -}}
{{- $plain := or (not .tls.enabled) .tls.plaintext -}}
ports:
  {{- if $plain }}
  - { name: mqtt, containerPort: 1883 }
  {{- end }}
  {{- if .tls.enabled }}
  - { name: mqtts, containerPort: 8883 }
  {{- end }}
  {{- if and .websocket $plain }}
  - { name: ws, containerPort: 8083 }
  {{- end }}
  {{- if and .websocket .tls.enabled }}
  - { name: wss, containerPort: 8084 }
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "fleet.emqx.probes" -}}
startupProbe:
  httpGet: { path: /status, port: dashboard }
  periodSeconds: 2
  failureThreshold: 90
readinessProbe:
  httpGet: { path: /status, port: dashboard }
  periodSeconds: 5
  timeoutSeconds: 5
livenessProbe:
  httpGet: { path: /status, port: dashboard }
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
{{- end -}}

{{/* Writes the file of accounts from the mounted Secrets; a password that the file cannot hold ends it with a sentence. */}}
{{- define "fleet.emqx.init" -}}
- name: accounts
  image: {{ .Values.emqx.image.repository }}:{{ .Values.emqx.image.tag }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [/bin/bash, -euc]
  args:
    - |
      umask 077
      out=/run/fleet/accounts/users.csv
      echo user_id,password,is_superuser > "$out"
      for account in /run/fleet/secrets/*; do
        user=$(< "$account/username"); password=$(< "$account/password")
        if [[ "$user$password" == *[$',"\n\r']* || -z "$user" || -z "$password" ]]; then
          echo "the Secret mounted at $account needs a username and a password without comma, quote and line end" >&2
          exit 1
        fi
        echo "$user,$password,false" >> "$out"
      done
      {{- if .Values.devices.accountsSecret }}
      # The devices' own: of their file their lines alone, as the services have theirs from above.
      devices=0
      acl=/run/fleet/accounts/acl.conf
      while read -r line; do
        [[ "$line" == "{deny, all}." ]] || printf '%s\n' "$line"
      done < /etc/fleet/acl/acl.conf > "$acl"
      declare -A known
      while read -r line; do
        if [[ "$line" == "{allow, {'and', [{username, "* ]]; then
          printf '%s\n' "$line" >> "$acl"
          user=${line#*username, \"}
          known[${user%%\"*}]=yes
        fi
      done < /run/fleet/devices/acl.conf
      echo "{deny, all}." >> "$acl"
      while IFS=, read -r user password _; do
        if [[ -n "$user" && -n "${known[$user]:-}" ]]; then
          echo "$user,$password,false" >> "$out"
          devices=$((devices + 1))
        fi
      done < /run/fleet/devices/passwords.csv
      if ((devices == 0)); then
        echo "the Secret {{ .Values.devices.accountsSecret }} has no device with a password and rules: make it of the files of fleet accounts" >&2
        exit 1
      fi
      {{- end }}
  resources:
    requests: { cpu: 10m, memory: 16Mi }
    limits: { memory: 64Mi }
  securityContext: {{- include "fleet.restricted" . | nindent 4 }}
  volumeMounts:
    - { name: accounts, mountPath: /run/fleet/accounts }
    {{- if .Values.devices.accountsSecret }}
    - { name: acl, mountPath: /etc/fleet/acl, readOnly: true }
    - { name: devices, mountPath: /run/fleet/devices, readOnly: true }
    {{- end }}
    {{- range (include "fleet.accounts" . | fromYaml).accounts }}
    - { name: account-{{ . }}, mountPath: /run/fleet/secrets/{{ . }}, readOnly: true }
    {{- end }}
    {{- range $i, $name := .Values.emqx.users.secretNames }}
    - { name: user-{{ $i }}, mountPath: /run/fleet/secrets/user-{{ $i }}, readOnly: true }
    {{- end }}
{{- end -}}

{{- define "fleet.emqx.volumes" -}}
{{- if not .Values.emqx.persistence.enabled -}}
- name: data
  emptyDir: { sizeLimit: {{ .Values.emqx.persistence.size }} }
{{ end -}}
- name: accounts
  emptyDir: { medium: Memory, sizeLimit: {{ empty .Values.devices.accountsSecret | ternary "1Mi" "32Mi" }} }
- name: acl
  configMap: { name: {{ include "fleet.fullname" . }}-emqx-acl }
# What EMQX writes outside its data: logs, and plugins that nobody installs.
- name: log
  emptyDir: { sizeLimit: 256Mi }
- name: plugins
  emptyDir: { sizeLimit: 64Mi }
{{- range (include "fleet.accounts" . | fromYaml).accounts }}
- name: account-{{ . }}
  secret:
    secretName: {{ include "fleet.secretName" (dict "root" $ "key" (printf "mqtt-%s" .)) }}
    defaultMode: 0440
{{- end }}
{{- with .Values.devices.accountsSecret }}
- name: devices
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- range $i, $name := .Values.emqx.users.secretNames }}
- name: user-{{ $i }}
  secret: { secretName: {{ $name }}, defaultMode: 0440 }
{{- end }}
{{- if .Values.emqx.tls.enabled }}
- name: tls
  secret: { secretName: {{ include "fleet.secretName" (dict "root" . "key" "emqx-tls") }}, defaultMode: 0440 }
{{- end }}
{{- end -}}

{{- define "fleet.emqx.mounts" -}}
- { name: data, mountPath: /opt/emqx/data }
- { name: log, mountPath: /opt/emqx/log }
- { name: plugins, mountPath: /opt/emqx/plugins }
- { name: accounts, mountPath: /run/fleet/accounts, readOnly: true }
- { name: acl, mountPath: /etc/fleet/acl, readOnly: true }
{{- if .Values.emqx.tls.enabled }}
- { name: tls, mountPath: /etc/fleet/tls, readOnly: true }
{{- end }}
{{- end -}}
