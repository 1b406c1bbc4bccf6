{{/*
A component: ServiceAccount, headless Service, Service, StatefulSet or Deployment, PodDisruptionBudget.

Every component comes from here, ours and the broker's alike, so what makes a pod safe is written once.
Takes a dict:
  root       the chart's context
  component  its name: of the objects, the label, the container
  values     its values: replicas, resources, nodeSelector, …
  image      full name of the image
  kind       StatefulSet (the default: the pods' names, and with them the client ids, are stable) or Deployment
  user       numeric user and group, 65532 without
  graceSeconds  from SIGTERM to SIGKILL
  command, args, env, ports, probes, mounts, volumes, claims, init, lifecycle, annotations   YAML as text
  services   YAML: ports of the Service for clients; no Service without
  affinity   YAML that stands where the values name no affinity
*/}}
{{- define "fleet.workload" -}}
{{- $root := .root -}}
{{- $values := .values -}}
{{- $kind := default "StatefulSet" .kind -}}
{{- $name := printf "%s-%s" (include "fleet.fullname" $root) .component -}}
{{- $user := default 65532 .user -}}
{{- $labels := include "fleet.labels" (dict "root" $root "component" .component) -}}
{{- $selector := include "fleet.selector" (dict "root" $root "component" .component) -}}
{{- $scaled := or (default dict $values.autoscaling).enabled (default dict $values.keda).enabled -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
automountServiceAccountToken: false
{{- if eq $kind "StatefulSet" }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}-pods
  namespace: {{ $root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
spec:
  clusterIP: None
  # A pod has to find its own name before it is ready.
  publishNotReadyAddresses: true
  selector: {{- $selector | nindent 4 }}
  ports:
    {{- range fromYamlArray .ports }}
    - name: {{ .name }}
      port: {{ .containerPort }}
      targetPort: {{ .name }}
    {{- end }}
{{- end }}
{{- with .services }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
  {{- with (default dict $values.service).annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ default "ClusterIP" (default dict $values.service).type }}
  selector: {{- $selector | nindent 4 }}
  ports: {{- . | nindent 4 }}
{{- end }}
---
apiVersion: apps/v1
kind: {{ $kind }}
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
spec:
  {{- if not $scaled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  {{- if eq $kind "StatefulSet" }}
  serviceName: {{ $name }}-pods
  # Pods do not wait for each other to start or to leave.
  podManagementPolicy: Parallel
  {{- with .claims }}
  volumeClaimTemplates: {{- . | nindent 4 }}
  {{- end }}
  {{- end }}
  selector:
    matchLabels: {{- $selector | nindent 6 }}
  template:
    metadata:
      # The chart's version is not among them: an upgrade restarts only what it changes.
      labels: {{- $selector | nindent 8 }}
      annotations:
        kubectl.kubernetes.io/default-container: {{ .component }}
        {{- with .annotations }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ $name }}
      automountServiceAccountToken: false
      # Variables named after services would be taken for settings.
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ default 30 .graceSeconds }}
      securityContext:
        runAsNonRoot: true
        runAsUser: {{ $user }}
        runAsGroup: {{ $user }}
        fsGroup: {{ $user }}
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: { type: RuntimeDefault }
      {{- with $root.Values.image.pullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if $values.affinity }}
      affinity: {{- toYaml $values.affinity | nindent 8 }}
      {{- else if .affinity }}
      affinity: {{- .affinity | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- $selector | nindent 14 }}
      {{- with .init }}
      initContainers: {{- . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ .image }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          {{- with .command }}
          command: {{- . | nindent 12 }}
          {{- end }}
          {{- if or .args $values.extraArgs }}
          args:
            {{- with .args }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- with $values.extraArgs }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- end }}
          env:
            {{- .env | nindent 12 }}
            {{- with $values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports: {{- .ports | nindent 12 }}
          {{- .probes | nindent 10 }}
          {{- with .lifecycle }}
          lifecycle: {{- . | nindent 12 }}
          {{- end }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          securityContext: {{- include "fleet.restricted" . | nindent 12 }}
          volumeMounts:
            - { name: tmp, mountPath: /tmp }
            {{- with .mounts }}
            {{- . | nindent 12 }}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: { sizeLimit: 64Mi }
        {{- with .volumes }}
        {{- . | nindent 8 }}
        {{- end }}
{{- if include "fleet.several" $values }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
spec:
  maxUnavailable: 1
  # A pod that is not ready takes nothing, so a drain of its node need not wait for it.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- $selector | nindent 6 }}
{{- end }}
{{- end -}}

{{/* What Pod Security "restricted" asks of a container, and a root that cannot be written to. */}}
{{- define "fleet.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
{{- end -}}


{{/* A claim for the volume of one pod. */}}
{{- define "fleet.claim" -}}
- metadata:
    name: {{ .name }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .persistence.storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources: { requests: { storage: {{ .persistence.size }} } }
{{- end -}}
