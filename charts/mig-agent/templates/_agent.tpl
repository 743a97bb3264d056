{{/* What the values come to: the agent's variables, its mounts, its rights. */}}

{{/* A list of strategies, whichever way they were written. */}}
{{- define "mig-agent.deviceListStrategies" -}}
{{- $given := .Values.deviceListStrategy | default list }}
{{- if kindIs "string" $given }}{{ $given = splitList "," $given }}{{ end }}
{{- toJson (dict "list" $given) }}
{{- end }}

{{/* YAML reads a bare off as false. */}}
{{- define "mig-agent.nodeLabels" -}}
{{- $given := .Values.nodeLabels | toString }}
{{- if has $given (list "off" "false") -}}
off
{{- else if eq $given "node" -}}
node
{{- else -}}
feature-file
{{- end }}
{{- end }}

{{/* Modes, as booleans. */}}
{{- define "mig-agent.modes" -}}
{{- $strategies := (include "mig-agent.deviceListStrategies" . | fromJson).list }}
{{- $labels := include "mig-agent.nodeLabels" . }}
{{- $tidy := .Values.tidyNodeStatus | default false }}
{{- $config := or (.Values.config).name (.Values.config).map | empty | not }}
{{- $asks := or (eq $labels "node") $tidy $config }}
{{- toJson (dict
    "deviceSpecs" (or .Values.passDeviceSpecs .Values.compatWithCPUManager | default false)
    "cdi" (or (has "cdi-annotations" $strategies) (has "cdi-cri" $strategies))
    "featureFile" (eq $labels "feature-file")
    "labelsNode" (eq $labels "node")
    "tidy" $tidy
    "config" $config
    "asksApiServer" $asks
    "clusterRole" (and $asks (ne ((.Values.rbac).create | toString) "false"))
    "policy" (and (or (eq $labels "node") $tidy) (ne ((.Values.rbac).restrictToOwnNode | toString) "false"))
    "service" (or ((.Values.metrics).service).enabled ((.Values.metrics).serviceMonitor).enabled | default false)) }}
{{- end }}

{{/* Where the driver is: the same for the agent and for whatever runs beside it. */}}
{{- define "mig-agent.driverEnv" -}}
- {name: NVIDIA_VISIBLE_DEVICES, value: all}
- {name: NVIDIA_DRIVER_CAPABILITIES, value: {{ .Values.nvidiaDriverCapabilities | default "utility" | quote }}}
{{- if .Values.migMonitor }}
- {name: NVIDIA_MIG_MONITOR_DEVICES, value: all}
{{- end }}
{{- with .Values.nvmlLibrary }}
- {name: NVML_LIBRARY, value: {{ quote . }}}
{{- end }}
{{- end }}

{{- define "mig-agent.agentEnv" -}}
{{- $modes := include "mig-agent.modes" . | fromJson }}
{{- $strategy := .Values.migStrategy | default "mixed" }}
{{- /* A variable goes before the file: the default must not. */}}
{{- if not (and $modes.config (eq $strategy "mixed")) }}
- {name: MIG_STRATEGY, value: {{ quote $strategy }}}
{{- end }}
- {name: RESOURCE_DOMAIN, value: {{ .Values.resourceDomain | default "nvidia.com" | quote }}}
{{- with (include "mig-agent.deviceListStrategies" . | fromJson).list }}
{{- if not (and $modes.config (eq (join "," .) "envvar")) }}
- {name: DEVICE_LIST_STRATEGY, value: {{ join "," . | quote }}}
{{- end }}
{{- end }}
{{- with .Values.deviceIDStrategy }}
{{- if not (and $modes.config (eq . "uuid")) }}
- {name: DEVICE_ID_STRATEGY, value: {{ quote . }}}
{{- end }}
{{- end }}
{{- if $modes.deviceSpecs }}
- {name: PASS_DEVICE_SPECS, value: "true"}
{{- end }}
{{- with .Values.visibleDevicesEnv }}
- {name: VISIBLE_DEVICES_ENV, value: {{ join "," . | quote }}}
{{- end }}
{{- range $value, $name := dict "gdrcopyEnabled" "GDRCOPY_ENABLED" "gdsEnabled" "GDS_ENABLED" "mofedEnabled" "MOFED_ENABLED" "failOnInitError" "FAIL_ON_INIT_ERROR" }}
{{- /* The last does nothing: the agent says so, and why. */}}
{{- if index $.Values $value }}
- {name: {{ $name }}, value: "true"}
{{- end }}
{{- end }}
{{- with .Values.preferredAllocation }}
- {name: PREFERRED_ALLOCATION, value: {{ quote . }}}
{{- end }}
- {name: NVIDIA_DRIVER_ROOT, value: {{ .Values.nvidiaDriverRoot | default "/" | quote }}}
- {name: CONTAINER_DRIVER_ROOT, value: /driver-root}
{{- if or $modes.deviceSpecs .Values.nvidiaDevRoot }}
- {name: NVIDIA_DEV_ROOT, value: {{ .Values.nvidiaDevRoot | default "/" | quote }}}
{{- end }}
{{- if $modes.deviceSpecs }}
- {name: CONTAINER_DEV_ROOT, value: /host}
{{- end }}
- {name: NODE_LABELS, value: {{ include "mig-agent.nodeLabels" . | quote }}}
{{- if $modes.config }}
- {name: CONFIG_FILE_SRCDIR, value: /available-configs}
{{- with .Values.config.default }}
- {name: DEFAULT_CONFIG, value: {{ quote . }}}
{{- end }}
{{- with .Values.config.fallbackStrategies }}
- {name: FALLBACK_STRATEGIES, value: {{ join "," . | quote }}}
{{- end }}
{{- end }}
{{- if $modes.tidy }}
- {name: TIDY_NODE_STATUS, value: "true"}
{{- end }}
{{- if $modes.asksApiServer }}
- {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
{{- end }}
{{- if or (ne (.Values.httpAddress | default "0.0.0.0") "0.0.0.0") (ne (int (.Values.httpPort | default 8080)) 8080) }}
- {name: LISTEN, value: {{ printf "%s:%d" (.Values.httpAddress | default "0.0.0.0") (int (.Values.httpPort | default 8080)) | quote }}}
{{- end }}
{{- with .Values.pollInterval }}
- {name: POLL_INTERVAL, value: {{ quote . }}}
{{- end }}
{{- with .Values.nvmlDeadline }}
- {name: NVML_DEADLINE, value: {{ quote . }}}
{{- end }}
{{- with .Values.settleTime }}
- {name: SETTLE_TIME, value: {{ quote . }}}
{{- end }}
- {name: LOG_LEVEL, value: {{ .Values.logLevel | default "info" | quote }}}
- {name: LOG_FORMAT, value: {{ .Values.logFormat | default "text" | quote }}}
{{ include "mig-agent.driverEnv" . }}
{{- end }}

{{/* The argument: the root and a list of variables as YAML. What the user adds replaces what is called the same. */}}
{{- define "mig-agent.env" -}}
{{- $root := index . 0 }}
{{- $added := concat ((((($root.Values.devicePlugin).containers).main).env) | default list) ($root.Values.extraEnv | default list) }}
{{- $replaced := dict }}
{{- range $added }}{{ $_ := set $replaced .name true }}{{ end }}
{{- $env := list }}
{{- range index . 1 | fromYamlArray }}
{{- if not (hasKey $replaced .name) }}{{ $env = append $env . }}{{ end }}
{{- end }}
{{- $seen := dict }}
{{- range reverse $added }}
{{- if not (hasKey $seen .name) }}{{ $_ := set $seen .name . }}{{ end }}
{{- end }}
{{- $taken := dict }}
{{- range $added }}
{{- if not (hasKey $taken .name) }}{{ $env = append $env (get $seen .name) }}{{ $_ := set $taken .name true }}{{ end }}
{{- end }}
{{- toYaml $env }}
{{- end }}

{{/* The mounts that whatever looks at the driver and the kubelet needs. */}}
{{- define "mig-agent.driverMounts" -}}
- name: driver-root
  mountPath: /driver-root
  readOnly: true
  # A driver that comes in a container (GPU operator) is mounted on the node later than this pod.
  mountPropagation: HostToContainer
# Asks NVIDIA's runtime for every GPU where it is told not to believe the variable of an unprivileged container.
- name: visible-devices
  mountPath: /var/run/nvidia-container-devices/all
{{- end }}

{{- define "mig-agent.driverVolumes" -}}
- name: driver-root
  hostPath:
    path: {{ .Values.nvidiaDriverRoot | default "/" | quote }}
    type: Directory
- name: pod-resources
  hostPath:
    path: {{ printf "%s/pod-resources" (.Values.kubeletRoot | default "/var/lib/kubelet" | trimSuffix "/") | quote }}
    type: Directory
- name: visible-devices
  hostPath:
    path: /dev/null
    type: CharDevice
{{- end }}

{{/* The kubelet's folders are root's, and the image's user is not. */}}
{{- define "mig-agent.podSecurityContext" -}}
{{- $context := dict "runAsUser" 0 "runAsGroup" 0 "seccompProfile" (dict "type" "RuntimeDefault") }}
{{- range $key, $value := .Values.podSecurityContext }}{{ $_ := set $context $key $value }}{{ end }}
{{- toYaml $context }}
{{- end }}

{{/* Nothing but what a mode needs; what the user says wins, key by key. */}}
{{- define "mig-agent.securityContext" -}}
{{- $given := deepCopy (.Values.securityContext | default dict) }}
{{- $context := dict "readOnlyRootFilesystem" true }}
{{- if or .Values.privileged $given.privileged }}
{{- $_ := set $context "privileged" true }}
{{- else }}
{{- $capabilities := $given.capabilities | default dict }}
{{- $add := $capabilities.add | default list }}
{{- if .Values.migMonitor }}{{ $add = append $add "SYS_ADMIN" }}{{ end }}
{{- if and .Values.createDeviceNodes (include "mig-agent.modes" . | fromJson).deviceSpecs }}{{ $add = append $add "MKNOD" }}{{ end }}
{{- $capabilities = dict "drop" ($capabilities.drop | default (list "ALL")) }}
{{- if $add }}{{ $_ := set $capabilities "add" (uniq $add) }}{{ end }}
{{- $_ := set $given "capabilities" $capabilities }}
{{- /* The API server refuses this beside the capability's long name. */}}
{{- if not (has "CAP_SYS_ADMIN" $add) }}{{ $_ := set $context "allowPrivilegeEscalation" false }}{{ end }}
{{- end }}
{{- range $key, $value := $given }}{{ $_ := set $context $key $value }}{{ end }}
{{- toYaml $context }}
{{- end }}

{{/* What is the same in the agent's pod and in the one that `helm test` runs beside it. */}}
{{- define "mig-agent.placement" -}}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ toYaml . }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ toYaml . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
