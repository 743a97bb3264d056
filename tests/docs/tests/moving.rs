//! The tables for people who come from NVIDIA's plugin have a row for all that it has, and name nothing here that is not here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

use std::collections::BTreeSet;

use docs::binaries::flags;
use docs::page::{Page, Table};
use docs::repository;
use serde_json::Value;

/// What k8s-device-plugin v0.20.0 takes: cmd/nvidia-device-plugin/main.go.
const FLAGS: [&str; 25] = [
    "--cdi-annotation-prefix",
    "--cdi-disable-hooks",
    "--cdi-feature-flags",
    "--config-file",
    "--container-driver-root",
    "--dev-root",
    "--device-discovery-strategy",
    "--device-id-strategy",
    "--device-list-strategy",
    "--fail-on-init-error",
    "--gdrcopy-enabled",
    "--gds-enabled",
    "--imex-channel-ids",
    "--imex-required",
    "--kubelet-socket",
    "--mig-strategy",
    "--mofed-enabled",
    "--mps-root",
    "--nvidia-cdi-hook-path",
    "--nvidia-ctk-path",
    "--nvidia-driver-root",
    "--pass-device-specs",
    "--shared-devices-allocation-policy",
    "DP_DISABLE_HEALTHCHECKS",
    "DP_ENABLE_HEALTHCHECKS",
];

/// The values of its chart: deployments/helm/nvidia-device-plugin/values.yaml.
const VALUES: [&str; 33] = [
    "affinity",
    "allowDefaultNamespace",
    "cdi",
    "compatWithCPUManager",
    "config",
    "deviceDiscoveryStrategy",
    "deviceIDStrategy",
    "deviceListStrategy",
    "devicePlugin",
    "failOnInitError",
    "fullnameOverride",
    "gdrcopyEnabled",
    "gdsEnabled",
    "gfd",
    "image",
    "imagePullSecrets",
    "migStrategy",
    "mofedEnabled",
    "mps",
    "nameOverride",
    "namespaceOverride",
    "nfd",
    "nodeSelector",
    "nvidiaDriverRoot",
    "podAnnotations",
    "podSecurityContext",
    "priorityClassName",
    "resources",
    "runtimeClassName",
    "securityContext",
    "selectorLabelsOverride",
    "tolerations",
    "updateStrategy",
];
fn first_column(table: &Table) -> BTreeSet<&str> {
    table.rows.iter().flat_map(|row| row[0].codes.iter().map(String::as_str)).collect()
}

#[test]
fn every_flag_of_nvidias_has_its_row_and_what_it_becomes_exists() {
    let page = Page::read("docs/moving-from-nvidia.md");
    let table = page.table("Flags and variables");
    assert_eq!(first_column(table), FLAGS.into_iter().collect());
    let ours = flags("mig-agent");
    for row in &table.rows {
        for flag in row[1].codes.iter().chain(row[2].codes.iter().filter(|code| code.starts_with("--"))) {
            assert!(ours.contains_key(flag), "there is no {flag}");
        }
        // What we have under the same name must not be called nothing.
        for theirs in row[0].codes.iter().filter(|theirs| ours.contains_key(*theirs)) {
            assert!(row[1].codes.contains(theirs), "{theirs} exists here");
        }
    }
}

#[test]
fn every_value_of_nvidias_has_its_row_and_is_taken_or_refused_as_it_says() {
    let page = Page::read("docs/moving-from-nvidia.md");
    let table = page.table("Values of the chart");
    assert_eq!(first_column(table), VALUES.into_iter().collect());
    let ours: Value = serde_saphyr::from_str(&repository::read("charts/mig-agent/values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&repository::read("charts/mig-agent/values.schema.json")).unwrap();
    let refusals = repository::read("charts/mig-agent/templates/_refusals.tpl");
    for row in &table.rows {
        for value in &row[0].codes {
            assert!(schema["properties"].get(value).is_some(), "the schema does not know {value}");
            if row[1].text.starts_with("same") {
                assert!(ours.get(value).is_some(), "values.yaml has no {value}");
            }
            if row[1].text.contains("refused") {
                let named = refusals.contains(&format!("{value}:"))
                    || refusals.contains(&format!("{value}."))
                    || refusals.contains(&format!("\"{value}\""));
                assert!(named, "nothing refuses {value}");
            }
        }
        for value in row[2].codes.iter().filter(|code| row[1].text.contains("refused") && !code.contains('=')) {
            let known = ours.get(value).is_some() || repository::read("charts/mig-agent/values.yaml").contains(value);
            assert!(known, "values.yaml has no {value}");
        }
    }
}

#[test]
fn what_the_pages_set_is_a_value_of_the_chart() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in Page::all() {
        for fence in page.fences.iter().filter(|fence| fence.has_commands()) {
            for command in fence.commands() {
                let words: Vec<&str> = command.line.split_whitespace().collect();
                let Some(chart) = words.iter().find(|word| word.starts_with("charts/")) else { continue };
                let values: Value = serde_saphyr::from_str(&repository::read(&format!("{chart}/values.yaml"))).unwrap();
                for pair in words.windows(2).filter(|pair| pair[0].starts_with("--set")) {
                    seen += 1;
                    let path = pair[1].trim_matches('\'').split('=').next().unwrap_or_default().replace("\\.", "_");
                    let mut names = path.split(['.', '[']);
                    let top = values.get(names.next().unwrap_or_default());
                    // Below an empty map, such as nodeSelector, anything goes.
                    let found = top.is_some_and(|top| match (top.as_object(), names.next()) {
                        (Some(map), Some(name)) if !map.is_empty() => map.contains_key(name),
                        _ => true,
                    });
                    if !found {
                        wrong.push(format!("{}:{}: {chart} has no {path}", page.path, fence.line));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 0);
}
