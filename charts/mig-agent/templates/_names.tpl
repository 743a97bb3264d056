{{/* What things are called. */}}

{{- define "mig-agent.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "mig-agent.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "mig-agent.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* Of things that are the cluster's: two releases of one name in two namespaces don't meet. */}}
{{- define "mig-agent.clusterName" -}}
{{- $namespace := include "mig-agent.namespace" . }}
{{- $name := include "mig-agent.fullname" . }}
{{- ternary $name (printf "%s-%s" $namespace $name) (eq $name $namespace) }}
{{- end }}

{{- define "mig-agent.serviceAccountName" -}}
{{- $account := .Values.serviceAccount | default dict }}
{{- if $account.create }}
{{- default (include "mig-agent.fullname" .) $account.name }}
{{- else }}
{{- default "default" $account.name }}
{{- end }}
{{- end }}

{{- define "mig-agent.image" -}}
{{- $image := .Values.image | default dict }}
{{- $tag := $image.tag }}
{{- if kindIs "float64" $tag }}{{ $tag = int64 $tag }}{{ end }}
{{- if $image.digest }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $image.repository (default (printf "v%s" .Chart.AppVersion) ($tag | toString | replace "<nil>" "")) }}
{{- end }}
{{- end }}

{{/* By which the DaemonSet knows its pods. They can't be changed later. */}}
{{- define "mig-agent.selectorLabels" -}}
{{- $labels := dict "app.kubernetes.io/name" (include "mig-agent.name" .) "app.kubernetes.io/instance" .Release.Name }}
{{- with .Values.selectorLabelsOverride }}
{{- $labels = deepCopy . }}
{{- end }}
{{- if (.Values.componentSelectorLabels).enabled }}
{{- $_ := set $labels "app.kubernetes.io/component" "device-plugin" }}
{{- end }}
{{- toYaml $labels }}
{{- end }}

{{- define "mig-agent.labels" -}}
{{- $labels := dict
    "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
    "app.kubernetes.io/name" (include "mig-agent.name" .)
    "app.kubernetes.io/instance" .Release.Name
    "app.kubernetes.io/version" .Chart.AppVersion
    "app.kubernetes.io/managed-by" .Release.Service }}
{{- toYaml (merge $labels (.Values.commonLabels | default dict)) }}
{{- end }}

{{/* Of pods: what selects them wins over what was added. */}}
{{- define "mig-agent.podLabels" -}}
{{- $own := dict "app.kubernetes.io/name" (include "mig-agent.name" .) "app.kubernetes.io/instance" .Release.Name }}
{{- $selector := include "mig-agent.selectorLabels" . | fromYaml }}
{{- toYaml (merge (dict) $selector (.Values.podLabels | default dict) (.Values.commonLabels | default dict) $own) }}
{{- end }}

{{/* The argument: a list of the root and annotations that win over the common ones. */}}
{{- define "mig-agent.annotations" -}}
{{- $root := index . 0 }}
{{- with merge (dict) (index . 1 | default dict) ($root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
