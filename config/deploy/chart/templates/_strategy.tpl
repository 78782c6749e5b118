{{/* How one controller follows another: never beside it. The default of a rolling update would let both run. */}}
{{- define "ferrolb.strategy" -}}
{{- $strategy := .Values.controller.strategy | default dict -}}
{{- if eq ($strategy.type | default "RollingUpdate") "Recreate" -}}
type: Recreate
{{- else -}}
{{- $rolling := $strategy.rollingUpdate | default dict -}}
{{- $surge := get $rolling "maxSurge" | default 0 | toString -}}
{{- if not (has $surge (list "0" "0%")) -}}
{{- fail (printf "controller.strategy.rollingUpdate.maxSurge is %s: two controllers beside each other could give one address to two Services; leave it out, set it to 0, or set controller.strategy.type to Recreate" $surge) -}}
{{- end -}}
type: RollingUpdate
rollingUpdate:
  maxSurge: 0
  maxUnavailable: 1
{{- end -}}
{{- end }}
