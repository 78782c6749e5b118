{{/* What the pods of both daemons have in common. Each takes the root and the daemon's name: (list . "speaker"). */}}

{{/* The image. MetalLB's own, which a values file written for its chart may name, stands for ours: this chart's images and
arguments belong together. */}}
{{- define "ferrolb.image" -}}
{{- $root := first . -}}
{{- $image := (index $root.Values (last .)).image -}}
{{- if has $image.repository (list (printf "quay.io/metallb/%s" (last .)) (printf "metallb/%s" (last .))) -}}
ferrolb/{{ last . }}:{{ $root.Chart.AppVersion }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Labels and annotations of the pods. */}}
{{- define "ferrolb.podMetadata" -}}
{{- $root := first . -}}
{{- $own := index $root.Values (last .) -}}
{{- $annotations := dict -}}
{{- if $root.Values.prometheus.scrapeAnnotations -}}
{{- $_ := set $annotations "prometheus.io/scrape" "true" -}}
{{- $_ := set $annotations "prometheus.io/scheme" "https" -}}
{{- $_ := set $annotations "prometheus.io/port" (toString $root.Values.prometheus.metricsPort) -}}
{{- end -}}
{{- with merge (deepCopy ($own.podAnnotations | default dict)) $annotations -}}
annotations: {{- toYaml . | nindent 2 }}
{{ end -}}
labels: {{- include "ferrolb.selector" . | nindent 2 }}
{{- with $own.labels }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}

{{/* Where the pods run, and as whom. */}}
{{- define "ferrolb.podSettings" -}}
{{- $root := first . -}}
{{- $own := index $root.Values (last .) -}}
serviceAccountName: {{ include "ferrolb.account" . }}
nodeSelector: {{- merge (deepCopy ($own.nodeSelector | default dict)) (dict "kubernetes.io/os" "linux") | toYaml | nindent 2 }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $own.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.securityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The Secret with the certificate of the metrics, if there is one; up to 0.15 it was said elsewhere. */}}
{{- define "ferrolb.certificate" -}}
{{- $values := (first .).Values -}}
{{- $key := printf "%sMetricsTLSSecret" (last .) -}}
{{ index $values.tls $key | default (get $values.prometheus $key) }}
{{- end }}

{{/* Image, log, ports and probes of the container; the arguments begin here and go on where this is included. */}}
{{- define "ferrolb.container" -}}
{{- $root := first . -}}
{{- $values := $root.Values -}}
{{- $own := index $values (last .) -}}
name: {{ last . }}
image: {{ include "ferrolb.image" . | quote }}
{{- with $own.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- with $own.command }}
command: [{{ . | quote }}]
{{- end }}
{{- $share := ternary "100m" "20m" (eq (last .) "speaker") }}
{{- with $own.resources | default (dict "requests" (dict "cpu" $share "memory" "32Mi")) }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $kind, $path := dict "livenessProbe" "/healthz" "readinessProbe" "/readyz" }}
{{- $probe := index $own $kind }}
{{- if $probe.enabled }}
{{ $kind }}:
  httpGet:
    path: {{ $path }}
    port: {{ $probe.port }}
    {{- if eq (last $) "speaker" }}
    # On the node's own network: answered to the node alone.
    host: 127.0.0.1
    {{- end }}
  {{- omit $probe "enabled" "port" | toYaml | nindent 2 }}
{{- end }}
{{- end }}
args:
- --port={{ $values.prometheus.metricsPort }}
- --health-probe-port={{ $own.livenessProbe.port }}
{{- with $own.logLevel }}
- --log-level={{ . }}
{{- end }}
{{- with $values.loadBalancerClass }}
- --lb-class={{ . }}
{{- end }}
{{- with $values.tls.cipherSuites | default $own.tlsCipherSuites }}
- --tls-cipher-suites={{ . }}
{{- end }}
{{- with $values.tls.curvePreferences }}
- --tls-curve-preferences={{ . }}
{{- end }}
{{- with $values.tls.minVersion | default $own.tlsMinVersion }}
- --tls-min-version={{ . }}
{{- end }}
{{- if include "ferrolb.certificate" . }}
- --metrics-cert-dir=/etc/metrics
{{- end }}
{{- end }}
