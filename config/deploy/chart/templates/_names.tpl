{{/* What objects are called. The names are those MetalLB's chart gives, so that a release of it can be upgraded to this
chart in place: a Deployment's selector can never be changed. */}}

{{- define "ferrolb.name" -}}
{{ .Values.nameOverride | default "metallb" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "ferrolb.fullname" -}}
{{- $name := .Values.nameOverride | default "metallb" -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{ .Values.fullnameOverride | default $full | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* By which a release's pods are found. Takes the root and optionally a component: (list . "speaker"). */}}
{{- define "ferrolb.selector" -}}
app.kubernetes.io/name: {{ include "ferrolb.name" (first .) }}
app.kubernetes.io/instance: {{ (first .).Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{/* What every object carries. */}}
{{- define "ferrolb.labels" -}}
app.kubernetes.io/name: {{ include "ferrolb.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Name of a daemon's ServiceAccount: (list . "speaker"). */}}
{{- define "ferrolb.account" -}}
{{- $root := first . -}}
{{- $account := (index $root.Values (last .)).serviceAccount -}}
{{- $own := printf "%s-%s" (include "ferrolb.fullname" $root) (last .) -}}
{{ $account.name | default (ternary $own "default" $account.create) }}
{{- end }}

{{- define "ferrolb.memberlist" -}}
{{ .Values.speaker.secretName | default (printf "%s-memberlist" (include "ferrolb.fullname" .)) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* "true" if there are speakers that gossip. */}}
{{- define "ferrolb.gossips" -}}
{{- if and .Values.speaker.enabled .Values.speaker.memberlist.enabled }}true{{ end -}}
{{- end }}

{{/* "true" if the controller answers webhooks. */}}
{{- define "ferrolb.webhooks" -}}
{{- if and .Values.controller.enabled (ne (.Values.controller.webhookMode | default "enabled") "disabled") }}true{{ end -}}
{{- end }}
