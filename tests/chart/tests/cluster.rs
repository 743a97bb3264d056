//! What an API server makes of the chart. `tests/chart/apiserver` starts one; `make chart` runs this with it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy takes only test functions for tests"
)]

use chart::{Cluster, Helm, Refusal, assert_snapshot, helms, repository, snapshots, text_of};

fn install(helm: &Helm, verb: &str, release: &str, namespace: &str, more: &[&str]) -> Result<String, Refusal> {
    let mut arguments = vec![verb, release, "charts/mig-agent", "--namespace", namespace];
    arguments.extend(more);
    let output = helm.run(&arguments);
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Refusal::of(&output))
    }
}

fn uninstall(helm: &Helm, release: &str, namespace: &str) {
    let output = helm.run(&["uninstall", release, "--namespace", namespace]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Field by field: an unknown one is an error, too.
#[test]
fn every_rendering_is_valid() {
    let cluster = Cluster::with(&["mig-agent", "gpus", "fake-nvml"]);
    cluster.create("runtime-class");
    let folder = tempfile::tempdir().unwrap();
    for name in snapshots() {
        // The Prometheus operator's kinds are not Kubernetes'.
        let text = text_of(&format!("tests/chart/snapshots/{name}.yaml"));
        let known = text.split("---\n").filter(|document| !document.contains("monitoring.coreos.com"));
        let file = folder.path().join(format!("{name}.yaml"));
        std::fs::write(&file, known.collect::<Vec<_>>().join("---\n")).unwrap();
        cluster.kubectl(&["create", "--dry-run=server", "--validate=strict", "-f", &file.to_string_lossy()]);
    }
    for name in chart::stems("deploy", ".yaml") {
        if ["kustomization", "mig-monitor"].contains(&name.as_str()) {
            continue;
        }
        let file = repository(&format!("deploy/{name}.yaml"));
        cluster.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &file.to_string_lossy()]);
    }
    cluster.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-k", "deploy"]);
}

#[test]
fn a_release_is_installed_upgraded_rolled_back_and_gone() {
    let cluster = Cluster::with(&["mig-agent"]);
    let before = cluster.objects();
    for helm in helms() {
        install(helm, "install", "mig-agent", "mig-agent", &[]).unwrap();
        assert_eq!(cluster.objects().iter().filter(|object| object.contains("DaemonSet/")).count(), 1);
        install(helm, "upgrade", "mig-agent", "mig-agent", &["--set", "nodeLabels=node,image.tag=v2"]).unwrap();
        let image = ["--namespace", "mig-agent", "get", "daemonset/mig-agent", "--output"];
        let image = [&image[..], &["jsonpath={.spec.template.spec.containers[0].image}"]].concat();
        assert_eq!(cluster.kubectl(&image), "mig-agent:v2");
        assert!(cluster.objects().contains(&"ClusterRole/mig-agent".to_owned()));
        // What `kubectl rollout` and helm say of the same name stay apart.
        let output = helm.run(&["rollback", "mig-agent", "1", "--namespace", "mig-agent"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(cluster.kubectl(&image), "mig-agent:v0.1.0");
        assert!(!cluster.objects().contains(&"ClusterRole/mig-agent".to_owned()));
        uninstall(helm, "mig-agent", "mig-agent");
        assert_eq!(cluster.objects(), before, "helm {} leaves something", helm.major);
    }
}

#[test]
fn the_notes_say_what_to_check_next() {
    let _cluster = Cluster::with(&["mig-agent"]);
    for (name, values) in [
        ("default", ""),
        ("config", "config.name=mine"),
        (
            "changed",
            "migStrategy=single,runtimeClassName=nvidia,nodeLabels=node,rbac.restrictToOwnNode=false,image.repository=ghcr.io/x/y,deviceListStrategy=cdi-cri",
        ),
    ] {
        let texts = helms().iter().map(|helm| {
            let text = install(helm, "install", "mig-agent", "mig-agent", &["--dry-run=server", "--set", values]);
            text.unwrap().split_once("NOTES:\n").expect("notes").1.to_owned()
        });
        for text in texts {
            assert_snapshot(&format!("tests/chart/snapshots/notes-{name}.txt"), &format!("{}\n", text.trim_end()));
        }
    }
}

#[test]
fn another_release_for_the_same_nodes_is_found() {
    let cluster = Cluster::with(&["mig-agent", "gpus"]);
    let helm = &helms()[0];
    install(helm, "install", "mig-agent", "mig-agent", &["--set", "nodeSelector.pool=a"]).unwrap();
    for helm in helms() {
        let try_it =
            |more: &[&str]| install(helm, "install", "second", "gpus", &[&["--dry-run=server"], more].concat());
        let Refusal(why) = try_it(&[]).unwrap_err();
        assert!(why.contains("DaemonSet mig-agent in namespace mig-agent offers nvidia.com resources"), "{why}");
        try_it(&["--set", "nodeSelector.pool=a"]).unwrap_err();
        try_it(&["--set", "nodeSelector.zone=b"]).unwrap_err();
        try_it(&["--set", "nodeSelector.pool=b"]).unwrap();
        try_it(&["--set", "resourceDomain=gpus.example.org"]).unwrap();
        try_it(&["--set", "allowOtherPlugins=true"]).unwrap();
        // It is in nobody's way but others'.
        install(helm, "upgrade", "mig-agent", "mig-agent", &["--dry-run=server", "--set", "fullnameOverride=new"])
            .unwrap();
        install(helm, "upgrade", "mig-agent", "mig-agent", &["--dry-run=server"]).unwrap();
    }
    drop(cluster);
}

#[test]
fn nvidias_plugin_is_found_where_it_runs() {
    let cluster = Cluster::with(&["mig-agent", "gpu-operator"]);
    cluster.create("nvidias-plugin");
    for helm in helms() {
        let try_it =
            |more: &[&str]| install(helm, "install", "mig-agent", "mig-agent", &[&["--dry-run=server"], more].concat());
        let runs_on = |nodes: usize| {
            let status = format!(
                r#"{{"status": {{"desiredNumberScheduled": {nodes}, "currentNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0}}}}"#
            );
            let patch = [
                "--namespace",
                "gpu-operator",
                "patch",
                "daemonset",
                "--subresource=status",
                "--type=merge",
                "--patch",
                &status,
            ];
            for name in ["nvidia-device-plugin-daemonset", "gpu-feature-discovery"] {
                cluster.kubectl(&[&patch[..], &[name]].concat());
            }
        };
        runs_on(0);
        try_it(&[]).unwrap();
        runs_on(3);
        let Refusal(why) = try_it(&[]).unwrap_err();
        assert_snapshot("tests/chart/snapshots/refused-beside-nvidias.txt", &why);
        try_it(&["--set", r"nodeSelector.nvidia\.com/gpu\.deploy\.device-plugin=false"]).unwrap_err();
        try_it(&["--set-string", r"nodeSelector.nvidia\.com/gpu\.deploy\.device-plugin=false"]).unwrap();
        try_it(&["--set", "resourceDomain=gpus.example.org"]).unwrap();
        try_it(&["--set", "allowOtherPlugins=true"]).unwrap();
    }
}

#[test]
fn who_may_not_list_daemonsets_is_told_and_can_go_on() {
    let cluster = Cluster::with(&["mig-agent"]);
    cluster.create("installer");
    for helm in helms() {
        let as_installer = ["--kube-as-user", "installer"];
        let Refusal(why) = install(helm, "install", "mig-agent", "mig-agent", &as_installer).unwrap_err();
        assert!(
            why.contains(
                r#"User "installer" cannot list resource "daemonsets" in API group "apps" at the cluster scope"#
            ),
            "{why}"
        );
        let skipped = [&as_installer[..], &["--set", "allowOtherPlugins=true"]].concat();
        install(helm, "install", "mig-agent", "mig-agent", &skipped).unwrap();
        uninstall(helm, "mig-agent", "mig-agent");
    }
}

/// A user of kubectl with the token of an agent's pod on the node `own`.
struct Agent<'c> {
    cluster: &'c Cluster,
    _folder: tempfile::TempDir,
    config: String,
}

impl<'c> Agent<'c> {
    fn on_its_node(cluster: &'c Cluster) -> Self {
        // As the kubelet asks for it: bound to the pod, and through it to the node.
        cluster.create("agents-pod");
        let request = [
            "--namespace",
            "mig-agent",
            "create",
            "token",
            "mig-agent",
            "--bound-object-kind=Pod",
            "--bound-object-name=agent",
        ];
        let token = cluster.kubectl(&request);
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("kubeconfig").to_string_lossy().into_owned();
        std::fs::copy(std::env::var("KUBECONFIG").unwrap(), &config).unwrap();
        cluster.kubectl(&["--kubeconfig", &config, "config", "set-credentials", "agent", "--token", token.trim()]);
        cluster.kubectl(&["--kubeconfig", &config, "config", "set-context", "--current", "--user", "agent"]);
        Self { cluster, _folder: folder, config }
    }

    fn with<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--kubeconfig", &self.config], arguments].concat()
    }

    fn does(&self, arguments: &[&str]) {
        self.cluster.kubectl(&self.with(arguments));
    }

    fn may_not(&self, arguments: &[&str]) -> String {
        self.cluster.refused(&self.with(arguments))
    }

    /// The policy is in force a moment after it was made.
    fn is_kept_to_its_node(&self, change_of_another: &[&str]) {
        let mut refused = String::new();
        for _ in 0..100 {
            let output = std::process::Command::new("kubectl").args(self.with(change_of_another)).output().unwrap();
            refused = String::from_utf8_lossy(&output.stderr).into_owned();
            if !output.status.success() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert!(refused.contains("mig-agent may change its own node only"), "{refused}");
    }
}

fn merged<'a>(node: &'a str, patch: &'a str) -> [&'a str; 6] {
    ["patch", "node", node, "--type=merge", "--patch", patch]
}

#[test]
fn an_agents_token_changes_its_labels_on_its_node_and_nothing_else() {
    let cluster = Cluster::with(&["mig-agent"]);
    cluster.create("nodes");
    install(&helms()[0], "install", "mig-agent", "mig-agent", &["--set", "nodeLabels=node"]).unwrap();
    let agent = Agent::on_its_node(&cluster);
    let label = r#"{"metadata": {"labels": {"nvidia.com/mig-3g.20gb.count": "2"}}}"#;
    agent.is_kept_to_its_node(&merged("other", label));
    agent.does(&merged("own", label));
    agent.does(&merged("own", r#"{"metadata": {"labels": {"nvidia.com/mig-3g.20gb.count": null}}}"#));
    for (change, why) in [
        (r#"{"metadata": {"labels": {"example.org/rack": "2"}}}"#, "only the labels that describe GPUs"),
        (r#"{"metadata": {"labels": {"example.org/rack": null}}}"#, "only the labels that describe GPUs"),
        (r#"{"metadata": {"labels": {"nvidia.com/gpu.present": "true"}}}"#, "only the labels that describe GPUs"),
        (r#"{"metadata": {"annotations": {"a": "b"}}}"#, "may change labels only"),
        (r#"{"spec": {"unschedulable": true}}"#, "may change labels only"),
        (r#"{"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}"#, "may change labels only"),
    ] {
        let refused = agent.may_not(&merged("own", change));
        assert!(refused.contains(why), "{change}: {refused}");
    }
    for forbidden in [&["get", "nodes"][..], &["delete", "node", "own"], &["get", "secrets", "--all-namespaces"]] {
        let refused = agent.may_not(forbidden);
        assert!(refused.contains("Forbidden") || refused.contains("forbidden"), "{refused}");
    }
    let status = merged("own", r#"{"status": {"capacity": {"nvidia.com/gpu": "9"}}}"#);
    assert!(agent.may_not(&[&status[..], &["--subresource=status"]].concat()).contains("forbidden"));
    uninstall(&helms()[0], "mig-agent", "mig-agent");
}

#[test]
fn an_agents_token_takes_names_with_0_out_of_its_nodes_status_and_does_nothing_else() {
    let cluster = Cluster::with(&["mig-agent"]);
    cluster.create("nodes");
    let amounts = r#"{"cpu": "8", "nvidia.com/mig-1g.5gb": "0", "nvidia.com/mig-2g.10gb": "2", "nvidia.com/small": "0",
                      "nvidia.com/gpu": "0", "nvidia.com/gpu.shared": "0", "example.org/mig-1g.5gb": "0"}"#;
    let status = format!(
        r#"{{"status": {{"capacity": {amounts}, "allocatable": {amounts},
            "conditions": [{{"type": "Ready", "status": "True"}}]}}}}"#
    );
    for node in ["own", "other"] {
        cluster.kubectl(&[&merged(node, &status)[..], &["--subresource=status"]].concat());
    }
    install(&helms()[0], "install", "mig-agent", "mig-agent", &["--set", "tidyNodeStatus=true"]).unwrap();
    cluster.create("status-reader");
    let agent = Agent::on_its_node(&cluster);
    let of_status = |node: &'static str, kind: &'static str, patch: &'static str| {
        ["patch", "node", node, kind, "--subresource=status", "--patch", patch]
    };
    let removal = r#"[{"op": "test", "path": "/status/capacity/nvidia.com~1mig-1g.5gb", "value": "0"},
                      {"op": "remove", "path": "/status/capacity/nvidia.com~1mig-1g.5gb"},
                      {"op": "remove", "path": "/status/allocatable/nvidia.com~1mig-1g.5gb"}]"#;
    let small = r#"{"status": {"allocatable": {"nvidia.com/small": null}}}"#;
    agent.is_kept_to_its_node(&of_status("other", "--type=merge", small));
    agent.does(&of_status("own", "--type=json", removal));
    agent.does(&of_status("own", "--type=merge", small));
    let left = cluster.kubectl(&["get", "node", "own", "--output", "jsonpath={.status.capacity}{.status.allocatable}"]);
    assert_eq!((left.matches("mig-1g.5gb").count(), left.matches("small").count()), (2, 1), "{left}");
    for (change, why) in [
        (r#"{"status": {"capacity": {"nvidia.com/mig-2g.10gb": null}}}"#, "that are 0"),
        (r#"{"status": {"capacity": {"nvidia.com/mig-2g.10gb": "0"}}}"#, "that are 0"),
        (r#"{"status": {"capacity": {"nvidia.com/mig-7g.40gb": "0"}}}"#, "that are 0"),
        (r#"{"status": {"capacity": {"nvidia.com/gpu": null}}}"#, "never those of whole GPUs"),
        (r#"{"status": {"capacity": {"nvidia.com/gpu.shared": null}}}"#, "never those of whole GPUs"),
        (r#"{"status": {"allocatable": {"example.org/mig-1g.5gb": null}}}"#, "names of nvidia.com"),
        (r#"{"status": {"allocatable": {"cpu": null}}}"#, "names of nvidia.com"),
        (r#"{"status": {"capacity": null}}"#, "that are 0"),
        (r#"{"status": {"conditions": [{"type": "Ready", "status": "False"}]}}"#, "only capacity and allocatable"),
        (r#"{"status": {"conditions": null}}"#, "only capacity and allocatable"),
        (r#"{"status": {"addresses": [{"type": "Hostname", "address": "a"}]}}"#, "only capacity and allocatable"),
        (r#"{"metadata": {"labels": {"nvidia.com/mig-3g.20gb.count": "2"}}}"#, "may change no labels"),
        (r#"{"metadata": {"annotations": {"a": "b"}}}"#, "may change status only"),
    ] {
        let refused = agent.may_not(&of_status("own", "--type=merge", change));
        assert!(refused.contains(why), "{change}: {refused}");
    }
    let label = merged("own", r#"{"metadata": {"labels": {"nvidia.com/mig-3g.20gb.count": "2"}}}"#);
    assert!(agent.may_not(&label).contains("cannot patch resource \"nodes\""));
    uninstall(&helms()[0], "mig-agent", "mig-agent");
}
