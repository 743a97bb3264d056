{{/* What is asked and cannot be had. All of it is said at once. */}}
{{- define "mig-agent.refusals" -}}
{{- $why := concat
    (include "mig-agent.refusals.nvidia" . | fromYamlArray)
    (include "mig-agent.refusals.own" . | fromYamlArray) }}
{{- if not $why }}
{{- $why = include "mig-agent.refusals.cluster" . | fromYamlArray }}
{{- end }}
{{- if $why }}
{{- fail (printf "\n\nmig-agent cannot be installed like this:\n  - %s\n" (join "\n  - " $why)) }}
{{- end }}
{{- end }}

{{/* Values of NVIDIA's chart that cannot be honoured. One that asks for nothing passes, so that its whole values may be taken over. */}}
{{- define "mig-agent.refusals.nvidia" -}}
{{- $why := list }}
{{- if (.Values.configManager).resources }}
{{- $why = append $why "configManager: there is no config-manager here; remove it." }}
{{- end }}
{{- if (.Values.gfd).enabled }}
{{- $why = append $why "gfd.enabled: gpu-feature-discovery is not part of this chart. The agent writes the MIG labels itself (value nodeLabels); if you need the other ones, install NVIDIA's chart with devicePlugin.enabled=false and gfd.enabled=true beside this one, and set nodeLabels to \"off\"." }}
{{- end }}
{{- $nfd := .Values.nfd | default dict }}
{{- if and $nfd (not (and (hasKey $nfd "enabled") (not $nfd.enabled))) (not (deepEqual $nfd (include "mig-agent.nvidiasNfd" . | fromYaml))) }}
{{- $why = append $why "nfd: node-feature-discovery is not part of this chart. Install its own chart (https://kubernetes-sigs.github.io/node-feature-discovery); its labels are what this chart's affinity waits for." }}
{{- end }}
{{- with .Values.mps }}
{{- if or (not (has (.root | default "") (list "" "/run/nvidia/mps"))) .enableHostNetwork .resources (and (hasKey . "enableHostPID") (eq .enableHostPID false)) }}
{{- $why = append $why "mps: MPS is not offered. A MIG slice is the unit of sharing here; remove the mps values." }}
{{- end }}
{{- end }}
{{- with .Values.cdi }}
{{- if or .nvidiaHookPath .featureFlags }}
{{- $why = append $why "cdi: the agent's CDI specification has no hooks and no feature flags; remove the cdi values. CDI itself is switched on by deviceListStrategy=cdi-cri or cdi-annotations." }}
{{- end }}
{{- end }}
{{- if eq (.Values.deviceDiscoveryStrategy | default "") "tegra" }}
{{- $why = append $why "deviceDiscoveryStrategy: Tegra has no MIG. Use NVIDIA's plugin on those nodes, and keep this one off them by nodeSelector." }}
{{- end }}
{{- if not (kindIs "invalid" .Values.logVerbosity) }}
{{- $why = append $why "logVerbosity: use logLevel (error, warn, info, debug or trace)." }}
{{- end }}
{{- if and (hasKey (.Values.devicePlugin | default dict) "enabled") (not .Values.devicePlugin.enabled) }}
{{- $why = append $why "devicePlugin.enabled: the agent is all that this chart installs. To keep it off some nodes use nodeSelector or affinity; to remove it, helm uninstall." }}
{{- end }}
{{- toYaml $why }}
{{- end }}

{{/* Its chart's default, which means nothing as long as gfd is off. */}}
{{- define "mig-agent.nvidiasNfd" -}}
nameOverride: node-feature-discovery
master:
  serviceAccount:
    name: node-feature-discovery
    create: true
  config:
    extraLabelNs: ["nvidia.com"]
worker:
  tolerations:
    - key: node-role.kubernetes.io/master
      operator: Equal
      value: ""
      effect: NoSchedule
    - key: nvidia.com/gpu
      operator: Equal
      value: present
      effect: NoSchedule
  config:
    sources:
      pci:
        deviceClassWhitelist: ["02", "03"]
        deviceLabelFields: [vendor]
{{- end }}

{{/* Values that contradict each other, or what the agent needs. */}}
{{- define "mig-agent.refusals.own" -}}
{{- $why := list }}
{{- $modes := include "mig-agent.modes" . | fromJson }}
{{- if and (eq (include "mig-agent.namespace" .) "default") (not .Values.allowDefaultNamespace) }}
{{- $why = append $why "the namespace is default: install into one of its own (--namespace mig-agent --create-namespace), or set allowDefaultNamespace=true." }}
{{- end }}
{{- with .Values.config }}
{{- if and .name .map }}
{{- $why = append $why "config.name and config.map: say one of them. name is a ConfigMap of yours, map is one that this chart makes." }}
{{- end }}
{{- if and .default .map (not (hasKey .map .default)) }}
{{- $why = append $why (printf "config.default is %s, which is not in config.map (%s)." .default (keys .map | sortAlpha | join ", ")) }}
{{- end }}
{{- if and .default (not .name) (not .map) }}
{{- $why = append $why "config.default needs config.map or config.name." }}
{{- end }}
{{- range .fallbackStrategies }}
{{- if not (has . (list "named" "single" "empty")) }}
{{- $why = append $why (printf "config.fallbackStrategies: %s is none. There are named, single and empty." .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if not (.Values.image).repository }}
{{- $why = append $why "image.repository is empty: say where the agent's image is." }}
{{- end }}
{{- $domain := .Values.resourceDomain | default "nvidia.com" }}
{{- if regexMatch "(^|[.])kubernetes[.]io$|^requests[.]" $domain }}
{{- $why = append $why (printf "resourceDomain: Kubernetes keeps %s for itself. Use nvidia.com, or a domain of yours." $domain) }}
{{- end }}
{{- $rolling := (.Values.updateStrategy).rollingUpdate | default dict }}
{{- if ne ((.Values.updateStrategy).type | default "RollingUpdate") "OnDelete" }}
{{- if not (has ($rolling.maxSurge | default 0 | toString) (list "0" "0%")) }}
{{- $why = append $why (printf "updateStrategy.rollingUpdate.maxSurge is %v: two agents on one node make the kubelet forget resources. Set it to 0; maxUnavailable says how many nodes are updated at once." $rolling.maxSurge) }}
{{- end }}
{{- if and (hasKey $rolling "maxUnavailable") (has ($rolling.maxUnavailable | toString) (list "0" "0%")) }}
{{- $why = append $why "updateStrategy.rollingUpdate.maxUnavailable is 0: with maxSurge 0 no node would ever be updated. Set it to 1 or more." }}
{{- end }}
{{- end }}
{{- if and .Values.createDeviceNodes (not $modes.deviceSpecs) }}
{{- $why = append $why "createDeviceNodes: means something with passDeviceSpecs=true (or compatWithCPUManager=true) only. Set that, or remove it." }}
{{- end }}
{{- range $value := list "pollInterval" "nvmlDeadline" "settleTime" }}
{{- with index $.Values $value }}
{{- if ne (include "mig-agent.isTime" .) "true" }}
{{- $why = append $why (printf "%s: %s is not a time from 10ms to 24h, which the agent would not start with. Give one, such as 5s, or leave it empty for the agent's own." $value .) }}
{{- end }}
{{- end }}
{{- end }}
{{- $own := include "mig-agent.ownVariables" . | fromYaml }}
{{- range concat (((((.Values.devicePlugin).containers).main).env) | default list) (.Values.extraEnv | default list) }}
{{- if hasKey $own .name }}
{{- $why = append $why (printf "extraEnv: %s is what the chart sets by %s, with all that has to agree with it. Use that." .name (get $own .name)) }}
{{- end }}
{{- end }}
{{- range .Values.extraArgs }}
{{- $variable := regexReplaceAll "^--([a-z0-9-]+)(=.*)?$" . "${1}" | replace "-" "_" | upper }}
{{- if and (hasPrefix "--" .) (hasKey $own $variable) }}
{{- $why = append $why (printf "extraArgs: %s is what the chart sets by %s, with all that has to agree with it. Use that." (regexFind "^--[a-z0-9-]+" .) (get $own $variable)) }}
{{- end }}
{{- end }}
{{- if regexMatch "^(127[.]|\\[::1\\]$)" (.Values.httpAddress | default "") }}
{{- $why = append $why (printf "httpAddress: the kubelet asks the agent how it is, and cannot reach %s in its pod. Leave it empty for every address of the pod." .Values.httpAddress) }}
{{- end }}
{{- $port := int (.Values.httpPort | default 8080) }}
{{- if and (lt $port 1024) (ne (include "mig-agent.bindsLowPorts" .) "true") }}
{{- $why = append $why (printf "httpPort: %d is below 1024, which takes a capability that the agent has not got. Use 1024 or above, or give it that by securityContext.capabilities.add={NET_BIND_SERVICE}." $port) }}
{{- end }}
{{- $strategies := (include "mig-agent.deviceListStrategies" . | fromJson).list }}
{{- if and (has "cdi-cri" $strategies) (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) }}
{{- $why = append $why (printf "deviceListStrategy: cdi-cri needs Kubernetes 1.29 (this is %s). Use cdi-annotations or envvar." .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if and (hasKey .Values "enabled") (not .Values.enabled) }}
{{- $why = append $why "enabled: switches this chart on or off where another one depends on it, by that one's condition. On its own, install it or don't." }}
{{- end }}
{{- if and ((.Values.metrics).serviceMonitor).enabled (eq (include "mig-agent.lacks" (list . "monitoring.coreos.com/v1" "ServiceMonitor")) "true") }}
{{- $why = append $why "metrics.serviceMonitor.enabled: the cluster has no ServiceMonitor. Install the Prometheus operator first, or use metrics.service.enabled and a scrape configuration." }}
{{- end }}
{{- if and ((.Values.metrics).prometheusRule).enabled (eq (include "mig-agent.lacks" (list . "monitoring.coreos.com/v1" "PrometheusRule")) "true") }}
{{- $why = append $why "metrics.prometheusRule.enabled: the cluster has no PrometheusRule. Install the Prometheus operator first." }}
{{- end }}
{{- if and $modes.config (not $modes.labelsNode) (not $modes.tidy) (not (.Values.serviceAccount).create) (not (.Values.serviceAccount).name) }}
{{- $why = append $why "config: the namespace's default account would get the right to read nodes. Set serviceAccount.create=true, or name an account in serviceAccount.name." }}
{{- end }}
{{- if and $modes.labelsNode (not (.Values.serviceAccount).create) (not (.Values.serviceAccount).name) }}
{{- $why = append $why "nodeLabels=node: the namespace's default account would get the right to change nodes. Set serviceAccount.create=true, or name an account in serviceAccount.name." }}
{{- end }}
{{- if and $modes.tidy (not (.Values.serviceAccount).create) (not (.Values.serviceAccount).name) }}
{{- $why = append $why "tidyNodeStatus: the namespace's default account would get the right to change the status of nodes. Set serviceAccount.create=true, or name an account in serviceAccount.name." }}
{{- end }}
{{- if and $modes.tidy $modes.policy (ne (include "mig-agent.hasPolicies" .) "true") }}
{{- $why = append $why (printf "tidyNodeStatus: Kubernetes %s has no ValidatingAdmissionPolicy (1.30 has), so each agent could change the status of every node. Leave it off; or accept that with rbac.restrictToOwnNode=false." .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if and $modes.labelsNode $modes.policy (ne (include "mig-agent.hasPolicies" .) "true") }}
{{- $why = append $why (printf "nodeLabels=node: Kubernetes %s has no ValidatingAdmissionPolicy (1.30 has), so each agent could change every node. Use nodeLabels=featureFile; or accept that with rbac.restrictToOwnNode=false." .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- $given := .Values.securityContext | default dict }}
{{- if and (or .Values.privileged $given.privileged) (hasKey $given "allowPrivilegeEscalation") (not $given.allowPrivilegeEscalation) }}
{{- $why = append $why "securityContext: privileged and allowPrivilegeEscalation: false exclude each other. Remove one." }}
{{- end }}
{{- if and .Values.privileged (hasKey $given "privileged") (not $given.privileged) }}
{{- $why = append $why "securityContext: privileged=true and securityContext.privileged=false contradict each other. Remove one." }}
{{- end }}
{{- toYaml $why }}
{{- end }}

{{/*
The agent's variables that have a value of the chart. Mounts, rights, probes and the look for other owners go by the value: a
variable or an argument beside it would part from them.
*/}}
{{- define "mig-agent.ownVariables" -}}
MIG_STRATEGY: migStrategy
RESOURCE_DOMAIN: resourceDomain
DEVICE_LIST_STRATEGY: deviceListStrategy
DEVICE_ID_STRATEGY: deviceIDStrategy
PASS_DEVICE_SPECS: passDeviceSpecs
VISIBLE_DEVICES_ENV: visibleDevicesEnv
PREFERRED_ALLOCATION: preferredAllocation
GDRCOPY_ENABLED: gdrcopyEnabled
GDS_ENABLED: gdsEnabled
MOFED_ENABLED: mofedEnabled
NVIDIA_DRIVER_ROOT: nvidiaDriverRoot
CONTAINER_DRIVER_ROOT: nvidiaDriverRoot
DRIVER_ROOT_CTR_PATH: nvidiaDriverRoot
NVIDIA_DEV_ROOT: nvidiaDevRoot
DEV_ROOT: nvidiaDevRoot
CONTAINER_DEV_ROOT: nvidiaDevRoot
NVML_LIBRARY: nvmlLibrary
KUBELET_ROOT: kubeletRoot
CDI_DIR: cdiDir
NODE_LABELS: nodeLabels
NODE_NAME: nodeLabels, tidyNodeStatus or config
TIDY_NODE_STATUS: tidyNodeStatus
CONFIG_FILE: config
CONFIG_FILE_SRCDIR: config
DEFAULT_CONFIG: config
FALLBACK_STRATEGIES: config
FEATURES_DIR: featuresDir
LISTEN: httpAddress and httpPort
POLL_INTERVAL: pollInterval
NVML_DEADLINE: nvmlDeadline
SETTLE_TIME: settleTime
{{- end }}

{{/* Whether the agent takes a time. The schema knows how one is written, not how long it is. */}}
{{- define "mig-agent.isTime" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 }}
{{- $milliseconds := 0 }}
{{- range regexFindAll "[0-9]+[a-z]+" . -1 }}
{{- /* Zeros in front would make it octal. Ten digits are more than a day in any unit, and more could not be reckoned with. */}}
{{- $digits := regexReplaceAll "^0*([0-9]*)[a-z]+$" . "${1}" }}
{{- $count := ternary 999999999 (int64 ($digits | default "0")) (gt (len $digits) 9) }}
{{- $milliseconds = add $milliseconds (mul $count (get $units (regexFind "[a-z]+" .))) }}
{{- end }}
{{- and (ge $milliseconds 10) (le $milliseconds 86400000) }}
{{- end }}

{{/* Whether the agent's rights, or the pod's own sysctl, allow ports below 1024. */}}
{{- define "mig-agent.bindsLowPorts" -}}
{{- $context := include "mig-agent.securityContext" . | fromYaml }}
{{- $capabilities := $context.capabilities | default dict }}
{{- $allowed := $context.privileged | default false }}
{{- range list "NET_BIND_SERVICE" "CAP_NET_BIND_SERVICE" "ALL" }}
{{- if has . ($capabilities.add | default list) }}{{ $allowed = true }}{{ end }}
{{- end }}
{{- range (.Values.podSecurityContext).sysctls }}
{{- if eq (.name | default "") "net.ipv4.ip_unprivileged_port_start" }}{{ $allowed = true }}{{ end }}
{{- end }}
{{- $allowed }}
{{- end }}

{{/* Asked of the cluster, or, where helm asks none, told from its version. */}}
{{- define "mig-agent.hasPolicies" -}}
{{- if .Capabilities.APIVersions.Has "v1/Pod" -}}
{{ .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" }}
{{- else -}}
{{ semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}
{{- end }}
{{- end }}

{{/* Whether a cluster that was asked does not know a kind. */}}
{{- define "mig-agent.lacks" -}}
{{- $versions := (index . 0).Capabilities.APIVersions }}
{{- and ($versions.Has "v1/Pod") (not ($versions.Has (printf "%s/%s" (index . 1) (index . 2)))) }}
{{- end }}

{{/*
What the cluster has already. Nothing is found where helm asks no cluster (helm template); where it may not list DaemonSets, helm
itself fails and says so.
*/}}
{{- define "mig-agent.refusals.cluster" -}}
{{- $why := list }}
{{- if not .Values.allowOtherPlugins }}
{{- $domain := .Values.resourceDomain | default "nvidia.com" }}
{{- range (lookup "apps/v1" "DaemonSet" "" "").items }}
{{- $annotations := .metadata.annotations | default dict }}
{{- $same := and (eq .metadata.name (include "mig-agent.fullname" $)) (eq .metadata.namespace (include "mig-agent.namespace" $)) }}
{{- $older := and (eq (get $annotations "meta.helm.sh/release-name") $.Release.Name) (eq (get $annotations "meta.helm.sh/release-namespace") $.Release.Namespace) }}
{{- $apart := include "mig-agent.apart" (list ($.Values.nodeSelector | default dict) (.spec.template.spec.nodeSelector | default dict)) }}
{{- $offers := include "mig-agent.offers" . }}
{{- if and (eq $offers $domain) (not (or $same $older $apart)) }}
{{- $why = append $why (printf "DaemonSet %s in namespace %s offers %s resources already. Two that offer the same resources on one node make the kubelet forget one of them. Remove it (NVIDIA's GPU operator: devicePlugin.enabled=false), or keep the two on different nodes by nodeSelector, or let this one offer others (resourceDomain). If they never meet on a node, set allowOtherPlugins=true." .metadata.name .metadata.namespace $domain) }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml $why }}
{{- end }}

{{/* Whether two node selectors can't both hold. */}}
{{- define "mig-agent.apart" -}}
{{- $other := index . 1 }}
{{- range $label, $value := index . 0 }}
{{- if and (hasKey $other $label) (ne (get $other $label) $value) }}yes{{ end }}
{{- end }}
{{- end }}

{{/* The domain of the resources that a DaemonSet offers, if it is known for that. */}}
{{- define "mig-agent.offers" -}}
{{- $domain := "" }}
{{- $daemonSet := . }}
{{- range .spec.template.spec.containers }}
{{- $command := join " " (concat (.command | default list) (.args | default list)) }}
{{- if eq .name "mig-agent" }}
{{- $domain = "nvidia.com" }}
{{- range .env }}{{ if eq .name "RESOURCE_DOMAIN" }}{{ $domain = .value }}{{ end }}{{ end }}
{{- else if and (regexMatch "(^|/)(k8s-device-plugin|nvidia-gpu-device-plugin|nvidia-device-plugin)([:@]|$)" .image) (not (regexMatch "gpu-feature-discovery|mps-control-daemon|config-manager" (printf "%s %s" .name $command))) }}
{{- /* One that runs nowhere, as on GKE where its own plugin is switched off, is in nobody's way. */}}
{{- if ne (int (($daemonSet.status).desiredNumberScheduled | default 0)) 0 }}
{{- $domain = "nvidia.com" }}
{{- end }}
{{- end }}
{{- end }}
{{- $domain }}
{{- end }}
