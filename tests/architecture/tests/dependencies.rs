//! Who may use whom. Data flows one way: the model knows nobody, the parts that meet hardware or the kubelet don't know
//! each other, the agent joins them, and nothing that is shipped knows that a fake driver exists.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy takes only test functions for tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Of ours, what each crate may use. Tests may use more.
const RULES: [(&str, &[&str]); 9] = [
    ("driver-files", &[]),
    ("mig-model", &[]),
    ("kubelet", &[]),
    ("fake-nvml", &[]),
    ("mig-health", &["mig-model"]),
    ("mig-nvml", &["driver-files", "mig-model"]),
    ("mig-device-plugin", &["driver-files", "kubelet", "mig-model"]),
    ("mig-agent", &["kubelet", "mig-device-plugin", "mig-health", "mig-model", "mig-nvml"]),
    ("migctl", &["kubelet", "mig-health", "mig-model", "mig-nvml"]),
];

/// What a crate must not use of other people's, because its work lies elsewhere.
const FORBIDDEN: [(&str, &[&str]); 7] = [
    ("mig-model", &["tokio", "tonic", "kube", "nvml-wrapper", "nvml-wrapper-sys", "rustix", "libc"]),
    ("mig-health", &["tokio", "tonic", "kube", "nvml-wrapper", "nvml-wrapper-sys", "rustix", "libc", "serde_json"]),
    ("kubelet", &["kube", "nvml-wrapper", "nvml-wrapper-sys"]),
    ("mig-nvml", &["tonic", "kube"]),
    ("mig-device-plugin", &["kube", "nvml-wrapper", "nvml-wrapper-sys"]),
    ("mig-agent", &["nvml-wrapper", "nvml-wrapper-sys", "tonic"]),
    ("migctl", &["nvml-wrapper", "nvml-wrapper-sys", "kube"]),
];

fn workspace() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata")
}

fn shipped_dependencies(package: &Package) -> BTreeSet<String> {
    let shipped = package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
    shipped.map(|dependency| dependency.name.clone()).collect()
}

#[test]
fn crates_use_only_what_lies_upstream_of_them() {
    let metadata = workspace();
    let rules = BTreeMap::from(RULES);
    let ours: BTreeSet<String> = metadata.packages.iter().map(|package| package.name.to_string()).collect();
    for package in metadata.packages.iter().filter(|package| package.manifest_path.as_str().contains("/crates/")) {
        let name = package.name.as_str();
        let allowed = rules.get(name).unwrap_or_else(|| panic!("{name} has no rule: state here whom it may use"));
        let used: Vec<String> = shipped_dependencies(package).intersection(&ours).cloned().collect();
        let wrong: Vec<&String> = used.iter().filter(|used| !allowed.contains(&used.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not use {wrong:?}");
    }
}

#[test]
fn each_crate_minds_its_own_work() {
    let metadata = workspace();
    for (name, forbidden) in FORBIDDEN {
        let package = metadata.packages.iter().find(|package| package.name.as_str() == name).expect(name);
        let used = shipped_dependencies(package);
        for wrong in forbidden {
            assert!(!used.contains(*wrong), "{name} must not use {wrong}");
        }
    }
}

#[test]
fn every_crate_takes_the_workspaces_lints() {
    for package in &workspace().packages {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("a manifest");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} does not inherit the workspace's lints",
            package.name
        );
    }
}

#[test]
fn unsafe_code_is_where_c_is_spoken() {
    fn lifts(path: &Path) -> bool {
        if path.is_dir() {
            return path.read_dir().unwrap().any(|entry| lifts(&entry.unwrap().path()));
        }
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        is_rust && std::fs::read_to_string(path).unwrap().contains("(unsafe_code")
    }
    let metadata = workspace();
    let lifted = |package: &&Package| lifts(package.manifest_path.parent().unwrap().join("src").as_std_path());
    let names: BTreeSet<&str> = metadata.packages.iter().filter(lifted).map(|package| package.name.as_str()).collect();
    // Of what is shipped, mig-nvml alone. fake-nvml is a C library, and contract a client of any.
    assert_eq!(names, BTreeSet::from(["contract", "fake-nvml", "mig-nvml"]));
}
