{{- define "wattribute.labels" -}}
app.kubernetes.io/name: wattribute
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* Release names differ; the usual one gives plain names. */}}
{{- define "wattribute.name" -}}
{{- if eq .Release.Name "wattribute" }}wattribute{{ else }}{{ printf "%s-wattribute" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}
