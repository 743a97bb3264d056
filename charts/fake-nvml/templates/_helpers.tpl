{{- define "fake-nvml.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "fake-nvml.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "fake-nvml.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "fake-nvml.selector" -}}
app.kubernetes.io/name: {{ include "fake-nvml.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "fake-nvml.labels" -}}
{{ include "fake-nvml.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* The scene's text: the value's own, or that of the file which it names. */}}
{{- define "fake-nvml.scene" -}}
{{- if kindIs "map" .Values.scene -}}
{{- toYaml .Values.scene -}}
{{- else if contains ":" .Values.scene -}}
{{- .Values.scene -}}
{{- else -}}
{{- $text := .Files.Get (printf "scenes/%s.yaml" .Values.scene) -}}
{{- if not $text -}}
{{- $known := list -}}
{{- range $path, $_ := .Files.Glob "scenes/*.yaml" -}}
{{- $known = append $known ($path | base | trimSuffix ".yaml") -}}
{{- end -}}
{{- fail (printf "\n\nscene: there is no scene %q in this chart; there are %s, or give a scene itself as YAML" .Values.scene (join ", " $known)) -}}
{{- end -}}
{{- $text -}}
{{- end -}}
{{- end -}}
