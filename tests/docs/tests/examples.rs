//! The manifests in docs/examples are what Kubernetes' types say, ask for what the agent offers, and are all shown in pods.md.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

use docs::page::Page;
use docs::repository;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, LimitRange, Pod, PodSpec, ResourceQuota};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn documents(file: &str) -> Vec<Value> {
    let text = repository::read(file);
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// As the API server reads it, back as text: what it would drop or refuse is missing.
fn typed<T: DeserializeOwned + Serialize>(file: &str, document: &Value) -> (T, Value) {
    let typed: T = serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{file}: {error}"));
    let again = serde_json::to_value(&typed).unwrap();
    (typed, again)
}

/// Numbers and texts are the same to Kubernetes in quantities.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::String(number.to_string()),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), plain(value))).collect(),
        other => other.clone(),
    }
}

fn quantities(document: &Value) -> Value {
    // A quantity may be written as a number, which k8s-openapi's type does not take.
    match document {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                let is_list = ["limits", "requests", "hard", "max", "min", "default", "defaultRequest"];
                let takes = is_list.contains(&name.as_str()) && value.is_object();
                (name.clone(), if takes { plain(value) } else { quantities(value) })
            })
            .collect(),
        Value::Array(items) => items.iter().map(quantities).collect(),
        other => other.clone(),
    }
}

fn check_pod(file: &str, spec: &PodSpec) {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let limits = containers.filter_map(|container| container.resources.as_ref()?.limits.as_ref());
    let asked: Vec<&String> = limits.flat_map(|limits| limits.keys()).collect();
    assert!(!asked.is_empty(), "{file} asks for nothing");
    for resource in asked {
        let profile = resource.strip_prefix("nvidia.com/mig-").map(|name| name.trim_end_matches(".shared"));
        let known = profile.is_some_and(is_of_the_demo) || resource == "nvidia.com/gpu";
        assert!(known, "{file} asks for {resource}, which the demo's node does not have");
    }
}

/// tests/scenes/demo.yaml, on which the end-to-end suite runs.
fn is_of_the_demo(profile: &str) -> bool {
    repository::read("tests/scenes/demo.yaml").contains(&format!("profile: {profile}"))
}

#[test]
fn the_manifests_are_what_kubernetes_takes() {
    let files = repository::files("docs/examples", "yaml");
    assert!(files.len() >= 9, "{files:?}");
    for file in files {
        for document in documents(&file) {
            let document = quantities(&document);
            let again = match document["kind"].as_str().unwrap() {
                "Pod" => {
                    let (pod, again) = typed::<Pod>(&file, &document);
                    check_pod(&file, &pod.spec.unwrap());
                    again
                }
                "Job" => {
                    let (job, again) = typed::<Job>(&file, &document);
                    check_pod(&file, &job.spec.unwrap().template.spec.unwrap());
                    again
                }
                "Deployment" => {
                    let (deployment, again) = typed::<Deployment>(&file, &document);
                    check_pod(&file, &deployment.spec.unwrap().template.spec.unwrap());
                    again
                }
                // What it says to the agent is tried in crates/mig-agent/tests/sharing.rs.
                "ConfigMap" => typed::<ConfigMap>(&file, &document).1,
                "ResourceQuota" => typed::<ResourceQuota>(&file, &document).1,
                "LimitRange" => {
                    let (range, again) = typed::<LimitRange>(&file, &document);
                    has_defaults(&file, &range);
                    again
                }
                other => panic!("{file}: nothing here knows what a {other} is"),
            };
            assert_eq!(plain(&again), plain(&document), "{file} has fields that Kubernetes does not know");
        }
    }
}

/// Without them every container of the namespace gets a slice: see the file.
fn has_defaults(file: &str, range: &LimitRange) {
    for item in &range.spec.as_ref().unwrap().limits {
        for resource in item.max.iter().flatten().map(|(name, _)| name) {
            let zero = |list: &Option<std::collections::BTreeMap<String, _>>| {
                let value: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> =
                    list.as_ref().and_then(|list| list.get(resource));
                value.is_some_and(|quantity| quantity.0 == "0")
            };
            assert!(zero(&item.default) && zero(&item.default_request), "{file}: {resource} has no default of 0");
        }
    }
}

#[test]
fn every_manifest_is_linked_to_and_is_the_one_that_is_shown() {
    let page = Page::read("docs/pods.md");
    for file in repository::files("docs/examples", "yaml") {
        let name = file.strip_prefix("docs/").unwrap();
        assert!(page.links.iter().any(|(_, link)| link == name), "pods.md has no link to {name}");
    }
    let all: String = repository::files("docs/examples", "yaml").iter().map(|file| repository::read(file)).collect();
    for page in [&page, &Page::read("README.md")] {
        for fence in page.fences.iter().filter(|fence| fence.info == "yaml") {
            assert!(
                all.contains(&fence.text),
                "{}:{} shows what is in no file:\n{}",
                page.path,
                fence.line,
                fence.text
            );
        }
    }
}

#[test]
fn every_platform_of_the_chart_is_in_the_table() {
    let page = Page::read("docs/install.md");
    for file in repository::files("charts/mig-agent/examples", "yaml") {
        assert!(page.links.iter().any(|(_, link)| *link == format!("../{file}")), "install.md has no link to {file}");
    }
}

#[test]
fn what_is_called_yaml_or_json_is() {
    for page in Page::all() {
        for fence in &page.fences {
            let error = match fence.info.as_str() {
                "yaml" => serde_saphyr::from_multiple::<Value>(&fence.text).err().map(|error| error.to_string()),
                "json" => serde_json::from_str::<Value>(&fence.text).err().map(|error| error.to_string()),
                _ => None,
            };
            assert_eq!(error, None, "{}:{}", page.path, fence.line);
        }
    }
}

/// What a container of the file prints, when its variables are these.
fn printed(file: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let pod = &documents(file)[0];
    let command: Vec<&str> =
        pod["spec"]["containers"][0]["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let mut shell = std::process::Command::new(command[0]);
    let path = std::env::var_os("PATH").unwrap();
    let output =
        shell.args(&command[1..]).env_clear().env("PATH", path).envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn each_process_gets_its_own_slice() {
    let two = printed("docs/examples/two-slices.yaml", &[("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")]);
    assert_eq!(two, ["worker 0 has MIG-a", "worker 1 has MIG-b"]);
    let both = [("MIG_DEVICES_3G_20GB", "MIG-a"), ("MIG_DEVICES_1G_5GB", "MIG-b"), ("CUDA_VISIBLE_DEVICES", "MIG-b")];
    assert_eq!(printed("docs/examples/two-profiles.yaml", &both), ["training on MIG-a", "watching on MIG-b"]);
    let one = [("CUDA_VISIBLE_DEVICES", "MIG-a"), ("MIG_DEVICES_3G_20GB", "MIG-a"), ("HOME", "/")];
    let shown = ["CUDA_VISIBLE_DEVICES=MIG-a", "MIG_DEVICES_3G_20GB=MIG-a"];
    assert_eq!(printed("docs/examples/one-slice.yaml", &one), shown);
}
