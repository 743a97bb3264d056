//! What is asked and cannot be had is refused, in words that say what to do.

#![allow(clippy::expect_used, clippy::panic, reason = "clippy takes only test functions for tests")]

use chart::{Refusal, assert_snapshot, helms};

/// Arguments of `helm template`, one refusal each.
const BY_SENTENCE: [&[&str]; 57] = [
    &["--set-string", "config.name=mine,config.map.default=version: v1"],
    &["--set-string", "config.default=large,config.map.small=version: v1"],
    &["--set", "config.default=large"],
    &["--set", "config.name=mine,config.fallbackStrategies={first}"],
    &["--set", "config.name=mine,serviceAccount.create=false"],
    &["--set", "configManager.resources.limits.cpu=1"],
    &["--set", "gfd.enabled=true"],
    &["--set", "nfd.enabled=true"],
    &["--set", "nfd.worker.config.sources.pci.deviceLabelFields={vendor,device}"],
    &["--set", "mps.root=/mps"],
    &["--set", "mps.enableHostPID=false"],
    &["--set", "cdi.nvidiaHookPath=/usr/bin/nvidia-cdi-hook"],
    &["--set", "cdi.featureFlags=x"],
    &["--set", "deviceDiscoveryStrategy=tegra"],
    &["--set", "logVerbosity=4"],
    &["--set", "devicePlugin.enabled=false"],
    &["--set", "enabled=false"],
    &["--namespace", "default"],
    &["--set", "namespaceOverride=default"],
    &["--set", "resourceDomain=example.kubernetes.io"],
    &["--set", "resourceDomain=requests.nvidia.com"],
    &["--set", "image=null"],
    &["--set", "image.repository="],
    &["--set", "updateStrategy.rollingUpdate.maxSurge=1"],
    &["--set", "updateStrategy.rollingUpdate.maxSurge=10%"],
    &["--set", "updateStrategy.rollingUpdate.maxUnavailable=0"],
    &["--set", "updateStrategy.type=null,updateStrategy.rollingUpdate.maxSurge=1"],
    &["--set", "createDeviceNodes=true"],
    &["--set", "deviceListStrategy=cdi-cri", "--kube-version", "1.28.0"],
    &["--set", "nodeLabels=node,serviceAccount.create=false"],
    &["--set", "nodeLabels=node", "--kube-version", "1.29.0"],
    &["--set", "nodeLabels=node", "--kube-version", "1.33.0", "--api-versions", "v1/Pod"],
    &["--set", "nodeLabels=node,rbac=null", "--kube-version", "1.29.0"],
    &["--set", "tidyNodeStatus=true,serviceAccount.create=false"],
    &["--set", "tidyNodeStatus=true", "--kube-version", "1.29.0"],
    &["--set", "extraArgs={--tidy-node-status}"],
    &["--set", "privileged=true,securityContext.allowPrivilegeEscalation=false"],
    &["--set", "securityContext.privileged=true,securityContext.allowPrivilegeEscalation=false"],
    &["--set", "metrics.serviceMonitor.enabled=true", "--api-versions", "v1/Pod"],
    &["--set", "metrics.prometheusRule.enabled=true", "--api-versions", "v1/Pod"],
    &["--kube-version", "1.27.0"],
    &["--set", "pollInterval=0s"],
    &["--set", "nvmlDeadline=9ms"],
    &["--set", "settleTime=23h60m1ms"],
    // More than can be reckoned with.
    &["--set", "pollInterval=99999999999999999999h"],
    &["--set", "httpPort=1023"],
    &["--set", "httpPort=80,securityContext.capabilities.add={SYS_NICE}"],
    &["--set", "httpPort=80,podSecurityContext.sysctls[0].name=net.core.somaxconn"],
    // What has a value of its own, and parts from it.
    &["--set", "extraEnv[0].name=RESOURCE_DOMAIN,extraEnv[0].value=nvidia.com"],
    &["--set", "devicePlugin.containers.main.env[0].name=NODE_LABELS,devicePlugin.containers.main.env[0].value=node"],
    &["--set", "extraArgs={--resource-domain=nvidia.com}"],
    &["--set", "extraArgs={--gds-enabled}"],
    &["--set", "extraArgs={--listen,0.0.0.0:9999}"],
    &["--set", "httpAddress=127.0.0.1"],
    &["--set", "httpAddress=[::1]"],
    &["--set", "privileged=true,securityContext.privileged=false"],
    // Several at once are all said at once.
    &["--set", "gfd.enabled=true,logVerbosity=4,createDeviceNodes=true"],
];

/// The same, found by the schema.
const BY_SCHEMA: [&[&str]; 58] = [
    &["--set-json", "priorityClassName=\"a\\nhostNetwork: true\""],
    &["--set", "priorityClassName=a: b"],
    &["--set", "httpAddress=999.1.1.1"],
    &["--set-json", "image.tag=123456789012345678901"],
    &["--set", "extraEnv[0].name=A,extraEnv[0].vallue=x"],
    &["--set-json", "extraEnv=[{\"name\": \"A\", \"value\": 1}]"],
    &["--set", "cdi.enabled=true"],
    &["--set", "mps.enabled=true"],
    &["--set-string", "gfd.enabled=false"],
    &["--set", "migstrategy=single"],
    &["--set", "image.registry=docker.io"],
    &["--set", "metrics.enabled=true"],
    &["--set", "serviceAccount.automount=true"],
    &["--set", "updateStrategy.maxUnavailable=1"],
    &["--set", "migStrategy=both"],
    &["--set", "migStrategy=true"],
    &["--set", "deviceListStrategy=env"],
    &["--set", "deviceListStrategy={envvar,env}"],
    &["--set", "deviceListStrategy=envvar\\,"],
    &["--set-json", "deviceListStrategy=[]"],
    &["--set", "deviceIDStrategy=name"],
    &["--set", "preferredAllocation=aligned"],
    &["--set", "resourceDomain=Nvidia.com"],
    &["--set", "resourceDomain="],
    &["--set", "visibleDevicesEnv=CUDA_VISIBLE_DEVICES"],
    &["--set", "visibleDevicesEnv={A B}"],
    &["--set-string", "passDeviceSpecs=true"],
    &["--set", "nvidiaDriverRoot=run/nvidia/driver"],
    &["--set", "kubeletRoot=1"],
    &["--set", "nodeLabels=yes"],
    &["--set", "nodeLabels=true"],
    &["--set", "pollInterval=5"],
    &["--set-string", "pollInterval=5 seconds"],
    &["--set", "logLevel=verbose"],
    &["--set", "logFormat=xml"],
    &["--set", "httpPort=0"],
    &["--set-string", "httpPort=8080"],
    &["--set", "httpAddress=::"],
    &["--set", "extraEnv.A=B"],
    &["--set", "extraEnv[0].value=B"],
    &["--set", "extraVolumeMounts[0].name=a"],
    &["--set", "affinity=none"],
    &["--set", "image.repository=ghcr.io/x/mig-agent:v1"],
    &["--set", "image.repository=https://ghcr.io/x"],
    &["--set", "image.digest=latest"],
    &["--set", "image.tag=a:b"],
    &["--set", "image.pullPolicy=Sometimes"],
    &["--set", "imagePullSecrets={registry}"],
    &["--set", "fullnameOverride=Mig_Agent"],
    &["--set", "podAnnotations.a=1"],
    &["--set", "podLabels.a=b/c"],
    &["--set", "nodeSelector.gpu=true"],
    &["--set", "tolerations[0].effect=Never"],
    &["--set", "resources.memory=1Gi"],
    &["--set", "readinessProbe.period=1"],
    &["--set", "terminationGracePeriodSeconds=0"],
    &["--set", "metrics.serviceMonitor.interval=fast"],
    &["--set", "test.resource=mig-1g.5gb"],
];

fn refused(arguments: &[&str]) -> String {
    let mut refusals = helms().iter().map(|helm| match helm.template(arguments) {
        Ok(_) => panic!("helm {} renders {arguments:?}", helm.major),
        Err(refusal) => (helm, refusal),
    });
    let (first, Refusal(why)) = refusals.next().expect("a helm");
    for (other, its) in refusals {
        assert_eq!(why, its.0, "helm {} and helm {} differ", first.major, other.major);
    }
    why
}

fn all_refused(cases: &[&[&str]]) -> String {
    cases.iter().map(|arguments| format!("$ {}\n{}\n", arguments.join(" "), refused(arguments))).collect()
}

#[test]
fn what_cannot_be_had_is_refused_with_what_to_do() {
    assert_snapshot("tests/chart/snapshots/refused.txt", &all_refused(&BY_SENTENCE));
}

#[test]
fn what_the_schema_does_not_know_is_refused() {
    assert_snapshot("tests/chart/snapshots/refused-by-schema.txt", &all_refused(&BY_SCHEMA));
}

/// On the near side of each edge.
#[test]
fn what_the_agent_takes_is_not_refused() {
    for values in [
        "pollInterval=10ms",
        "nvmlDeadline=23h60m",
        "settleTime=24h",
        // Not octal.
        "settleTime=0000000000010ms",
        "httpPort=1024",
        "httpPort=80,privileged=true",
        "httpPort=80,securityContext.capabilities.add={NET_BIND_SERVICE}",
        "httpPort=80,podSecurityContext.sysctls[0].name=net.ipv4.ip_unprivileged_port_start",
        "httpAddress=10.20.255.1",
        "extraEnv[0].name=RUST_BACKTRACE,extraEnv[0].value=full",
        "nfd.enabled=false",
    ] {
        for helm in helms() {
            helm.template(&["--set", values]).unwrap_or_else(|Refusal(why)| panic!("{values}: {why}"));
        }
    }
}

/// Kubernetes takes `123` and `true` for names, and YAML takes them for something else.
#[test]
fn names_stay_names() {
    let values = "fullnameOverride=123,namespaceOverride=456,priorityClassName=true,runtimeClassName=null,serviceAccount.name=1e5";
    for helm in helms() {
        let rendered = helm.template(&["--set-string", values]).unwrap_or_else(|Refusal(why)| panic!("{why}"));
        for line in [
            "name: \"123\"",
            "namespace: \"456\"",
            "priorityClassName: \"true\"",
            "runtimeClassName: \"null\"",
            "serviceAccountName: \"1e5\"",
        ] {
            assert!(rendered.contains(line), "{line}\n{rendered}");
        }
    }
}

/// Each key may be null: what is left is a rendering or a refusal, never a template's stumble.
#[test]
fn no_null_makes_a_template_stumble() {
    let values = chart::default_values();
    let paths = chart::flattened(&values, &[]).into_keys().flat_map(|path| {
        let parents: Vec<String> = path.match_indices('.').map(|(at, _)| path[..at].to_owned()).collect();
        parents.into_iter().chain([path])
    });
    let paths: std::collections::BTreeSet<String> = paths.collect();
    assert!(paths.len() > 100, "{paths:?}");
    let helm = helms().last().expect("a helm");
    let all_on = "nodeLabels=node,metrics.serviceMonitor.enabled=true,passDeviceSpecs=true,test.resource=a/b";
    for path in paths {
        let null = format!("{path}=null");
        if let Err(Refusal(why)) = helm.template(&["--set", all_on, "--set", &null]) {
            let ours = why.contains("cannot be installed like this") || why.contains("of the schema");
            assert!(ours, "--set {all_on} --set {null}: {why}");
        }
    }
}
