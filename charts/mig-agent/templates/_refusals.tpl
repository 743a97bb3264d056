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
{{- with .Values.config }}
{{- if or .name .map .default }}
{{- $why = append $why "config: the agent does not read NVIDIA's configuration files yet. Set their flags as values (migStrategy, deviceListStrategy, ...); for nodes that differ, install one release for each kind of node, apart by nodeSelector. sharing (time-slicing, MPS) has no counterpart yet." }}
{{- end }}
{{- end }}
{{- if (.Values.configManager).resources }}
{{- $why = append $why "configManager: there is no config-manager here; remove it." }}
{{- end }}
{{- if (.Values.gfd).enabled }}
{{- $why = append $why "gfd.enabled: gpu-feature-discovery is not part of this chart. The agent writes the MIG labels itself (value nodeLabels); if you need the other ones, install NVIDIA's chart with devicePlugin.enabled=false and gfd.enabled=true beside this one, and set nodeLabels to \"off\"." }}
{{- end }}
{{- $nfd := .Values.nfd | default dict }}
{{- if and $nfd (not (deepEqual $nfd (include "mig-agent.nvidiasNfd" . | fromYaml))) }}
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
{{- range $value, $what := dict "gdrcopyEnabled" "GDRCopy's device" "gdsEnabled" "GPUDirect Storage's devices" "mofedEnabled" "Mellanox OFED's devices" }}
{{- if index $.Values $value }}
{{- $why = append $why (printf "%s: the agent does not hand out %s. Remove the value, and give them to the containers that need them with a plugin of their own." $value $what) }}
{{- end }}
{{- end }}
{{- if eq (.Values.deviceDiscoveryStrategy | default "") "tegra" }}
{{- $why = append $why "deviceDiscoveryStrategy: Tegra has no MIG. Use NVIDIA's plugin on those nodes, and keep this one off them by nodeSelector." }}
{{- end }}
{{- if .Values.failOnInitError }}
{{- $why = append $why "failOnInitError: the agent never ends because the driver does not start: it waits, is not ready, and /readyz says why. Remove the value; to be told, watch for pods that are not ready." }}
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
{{- if not (.Values.image).repository }}
{{- $why = append $why "image.repository is empty: say where the agent's image is." }}
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
{{- $strategies := (include "mig-agent.deviceListStrategies" . | fromJson).list }}
{{- if and (has "cdi-cri" $strategies) (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) }}
{{- $why = append $why (printf "deviceListStrategy: cdi-cri needs Kubernetes 1.29 (this is %s). Use cdi-annotations or envvar." .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if and $modes.labelsNode (not (.Values.serviceAccount).create) (not (.Values.serviceAccount).name) }}
{{- $why = append $why "nodeLabels=node: the namespace's default account would get the right to change nodes. Set serviceAccount.create=true, or name an account in serviceAccount.name." }}
{{- end }}
{{- if and $modes.labelsNode (.Values.rbac).restrictToOwnNode (not (eq (include "mig-agent.hasPolicies" .) "true")) }}
{{- $why = append $why (printf "nodeLabels=node: Kubernetes %s has no ValidatingAdmissionPolicy (1.30 has), so each agent could change every node. Use nodeLabels=featureFile; or accept that with rbac.restrictToOwnNode=false." .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if and (.Values.securityContext).privileged (hasKey .Values.securityContext "allowPrivilegeEscalation") (not .Values.securityContext.allowPrivilegeEscalation) }}
{{- $why = append $why "securityContext: privileged and allowPrivilegeEscalation: false exclude each other. Remove one." }}
{{- end }}
{{- if and .Values.securityContext (or .Values.migMonitor .Values.privileged .Values.createDeviceNodes) }}
{{- $why = append $why "securityContext replaces the one that migMonitor, privileged and createDeviceNodes change. Set either it or them." }}
{{- end }}
{{- toYaml $why }}
{{- end }}

{{/* Asked of the cluster, or, where helm asks none, told from its version. */}}
{{- define "mig-agent.hasPolicies" -}}
{{- if .Capabilities.APIVersions.Has "v1/Pod" -}}
{{ .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" }}
{{- else -}}
{{ semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}
{{- end }}
{{- end }}

{{/* What the cluster has already. Nothing is found where helm asks no cluster (helm template). */}}
{{- define "mig-agent.refusals.cluster" -}}
{{- $why := list }}
{{- toYaml $why }}
{{- end }}
