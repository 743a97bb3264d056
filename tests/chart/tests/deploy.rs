//! deploy/ is what the charts render to by default: for whoever has no helm. `SNAPSHOTS=overwrite` writes it anew.

#![allow(clippy::expect_used, clippy::panic, reason = "clippy takes only test functions for tests")]

use chart::{assert_snapshot, helms, text_of};

const AGENT: &str = "\
# mig-agent on every node with an NVIDIA GPU: each MIG slice becomes a resource such as nvidia.com/mig-3g.20gb.
#
#   kubectl apply -f deploy/mig-agent.yaml
#
# Rendered from charts/mig-agent, whose values say what may be changed here and why; `make chart` holds it current.
# What a node needs: the NVIDIA driver, MIG mode on and slices cut, and the NVIDIA container toolkit. The agent's container is
# given the GPUs by the toolkit's runtime (NVIDIA_VISIBLE_DEVICES below): where that is not containerd's default runtime, add
# `runtimeClassName: nvidia` to the pod's spec. Where the agent logs that a permission is missing, see deploy/mig-monitor.yaml.
# `image` names no registry: put the one that you push to in front of it.
apiVersion: v1
kind: Namespace
metadata:
  name: mig-agent
  labels:
    app.kubernetes.io/name: mig-agent
    # Folders of the node are mounted, which the stricter levels refuse.
    pod-security.kubernetes.io/enforce: privileged
";

/// What only helm needs is left out: its own labels, its tests, where each document comes from.
fn plain(rendered: &str) -> String {
    let documents = rendered.split("---\n").filter(|document| !document.contains("helm.sh/hook"));
    let documents = documents.map(|document| {
        let lines = document.lines().filter(|line| {
            !["# Source: ", "helm.sh/chart: ", "app.kubernetes.io/managed-by: "]
                .iter()
                .any(|helms| line.trim_start().starts_with(helms))
        });
        lines.map(|line| format!("{line}\n")).collect()
    });
    let documents: Vec<String> = documents.filter(|document: &String| !document.is_empty()).collect();
    documents.join("---\n")
}

#[test]
fn the_plain_manifest_is_the_charts_default() {
    let rendered = helms()[0].template(&[]).unwrap_or_else(|refusal| panic!("{}", refusal.0));
    assert_snapshot("deploy/mig-agent.yaml", &format!("{AGENT}---\n{}", plain(&rendered)));
}

/// The patch adds what `migMonitor=true` adds to the rendering, line by line.
#[test]
fn the_monitor_patch_is_what_the_value_does() {
    let helm = &helms()[0];
    let render = |value| plain(&helm.template(&["--set", value]).unwrap_or_else(|refusal| panic!("{}", refusal.0)));
    let (without, with) = (render("migMonitor=false"), render("migMonitor=true"));
    let mut rest = without.lines().peekable();
    let added: Vec<&str> = with.lines().filter(|line| rest.next_if_eq(line).is_none()).map(str::trim).collect();
    assert_eq!(rest.next(), None, "migMonitor takes something away");
    assert_eq!(added, ["- name: NVIDIA_MIG_MONITOR_DEVICES", "value: all", "add:", "- SYS_ADMIN"]);
    let patch = text_of("deploy/mig-monitor.yaml");
    for line in ["- name: NVIDIA_MIG_MONITOR_DEVICES", "value: all", r#"add: ["SYS_ADMIN"]"#] {
        assert!(patch.lines().any(|its| its.trim() == line), "{line}");
    }
}
