//! What each mode renders to, whole. snapshots/*.yaml are what would be installed: read them when the chart changes.

#![allow(clippy::expect_used, clippy::panic, reason = "clippy takes only test functions for tests")]

use chart::{assert_snapshot, helms, snapshots, stems, text_of};

/// A snapshot's name, and the arguments that make it.
const MODES: [(&str, &[&str]); 18] = [
    ("default", &[]),
    ("single", &["--set", "migStrategy=single"]),
    ("volume-mounts", &["--set", r"deviceListStrategy=envvar\,volume-mounts", "--set", "deviceIDStrategy=index"]),
    ("cdi", &["--set", "deviceListStrategy={cdi-annotations,cdi-cri}", "--set", "runtimeClassName=nvidia"]),
    ("device-specs", &["--set", "compatWithCPUManager=true"]),
    (
        "device-nodes",
        &[
            "--set",
            "passDeviceSpecs=true",
            "--set",
            "createDeviceNodes=true",
            "--set",
            "nvidiaDevRoot=/run/nvidia/driver/",
        ],
    ),
    ("mig-monitor", &["--set", "migMonitor=true"]),
    ("privileged", &["--set", "privileged=true"]),
    ("labels-off", &["--set", "nodeLabels=off"]),
    ("labels-node", &["--set", "nodeLabels=node"]),
    (
        "labels-node-unrestricted",
        &["--set", "nodeLabels=node", "--set", "rbac.restrictToOwnNode=false", "--kube-version", "1.28.0"],
    ),
    ("tidy", &["--set", "tidyNodeStatus=true"]),
    (
        "config",
        &[
            "--set-string",
            "config.map.default=version: v1",
            "--set-string",
            "config.map.shared=version: v1",
            "--set",
            "config.default=shared",
        ],
    ),
    ("metrics", &["--set", "metrics.serviceMonitor.enabled=true", "--set", "metrics.prometheusRule.enabled=true"]),
    ("slice-test", &["--set", "test.resource=nvidia.com/mig-1g.5gb", "--set", "test.doctor=false"]),
    // All that NVIDIA's chart has, as `helm get values --all` prints it.
    ("nvidias-values", &["--values", "tests/chart/values/nvidia-0.20.yaml"]),
    // As many values as possible, none at its default.
    ("changed", &["--values", "tests/chart/values/changed.yaml"]),
    // All that may be null is null.
    ("nulls", &["--values", "tests/chart/values/nulls.yaml"]),
];

fn rendered(arguments: &[&str]) -> String {
    let mut texts = helms().iter().map(|helm| {
        let text = helm.template(arguments).unwrap_or_else(|refusal| panic!("helm {}: {}", helm.major, refusal.0));
        (helm, text)
    });
    let (first, text) = texts.next().expect("a helm");
    for (other, its) in texts {
        assert_eq!(text, its, "helm {} and helm {} differ", first.major, other.major);
    }
    text
}

#[test]
fn each_mode_renders_to_its_snapshot() {
    for (name, arguments) in MODES {
        assert_snapshot(&format!("tests/chart/snapshots/{name}.yaml"), &rendered(arguments));
    }
}

#[test]
fn each_example_renders_to_its_snapshot() {
    for name in stems("charts/mig-agent/examples", ".yaml") {
        let values = format!("charts/mig-agent/examples/{name}.yaml");
        assert_snapshot(&format!("tests/chart/snapshots/example-{name}.yaml"), &rendered(&["--values", &values]));
    }
}

#[test]
fn no_snapshot_is_left_of_what_is_gone() {
    let examples = stems("charts/mig-agent/examples", ".yaml").into_iter().map(|name| format!("example-{name}"));
    let mut expected: Vec<String> = MODES.iter().map(|(name, _)| (*name).to_owned()).chain(examples).collect();
    expected.sort();
    assert_eq!(snapshots(), expected);
}

/// Whatever is switched on, only labels, the choice of a configuration and the tidying of the status need the API server.
#[test]
fn a_token_is_given_only_to_who_asks_the_api_server() {
    for name in snapshots() {
        let text = text_of(&format!("tests/chart/snapshots/{name}.yaml"));
        let wants = name.starts_with("labels-node") || ["config", "tidy", "changed"].contains(&name.as_str());
        assert_eq!(text.contains("automountServiceAccountToken: true"), wants, "{name}");
        assert_eq!(text.contains("kind: ClusterRole\n"), wants, "{name}");
    }
}

#[test]
fn helm_finds_nothing_to_complain_of() {
    for helm in helms() {
        for values in ["charts/mig-agent/values.yaml", "tests/chart/values/changed.yaml"] {
            let output =
                helm.run(&["lint", "--strict", "--namespace", "mig-agent", "charts/mig-agent", "--values", values]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
    }
}
