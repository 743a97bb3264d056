//! The tables for people who come from NVIDIA's plugin have a row for all that it has, and name nothing here that is not here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

use std::collections::BTreeSet;
use std::process::Command;

use docs::binaries::{flags, folder as folder_of_programs};
use docs::page::{Page, Table};
use docs::repository;
use serde_json::Value;

/// What k8s-device-plugin v0.20.0 takes (cmd/nvidia-device-plugin/main.go), the two before the last two GFD and other
/// versions; each with a value that asks for something.
const FLAGS: [(&str, &str); 27] = [
    ("--cdi-annotation-prefix", "cdi.example.com/"),
    ("--cdi-disable-hooks", "all"),
    ("--cdi-feature-flags", "some"),
    ("--config-file", "/nowhere/config.yaml"),
    ("--container-driver-root", "/driver-root"),
    ("--dev-root", "/nowhere"),
    ("--device-discovery-strategy", "tegra"),
    ("--device-id-strategy", "index"),
    ("--device-list-strategy", "envvar,volume-mounts"),
    ("--fail-on-init-error", "true"),
    ("--gdrcopy-enabled", "true"),
    ("--gds-enabled", "true"),
    ("--imex-channel-ids", "0,1"),
    ("--imex-required", "true"),
    ("--kubelet-socket", "/nowhere/device-plugins/kubelet.sock"),
    ("--mig-strategy", "single"),
    ("--mofed-enabled", "true"),
    ("--mps-root", "/run/nvidia/mps"),
    ("--nvidia-cdi-hook-path", "/usr/bin/nvidia-cdi-hook"),
    ("--nvidia-ctk-path", "/usr/bin/nvidia-ctk"),
    ("--nvidia-driver-root", "/run/nvidia/driver"),
    ("--pass-device-specs", "true"),
    ("--shared-devices-allocation-policy", "packed"),
    ("--restart-on-device-unhealthy", "true"),
    ("--use-node-feature-api", "true"),
    ("DP_DISABLE_HEALTHCHECKS", "xids"),
    ("DP_ENABLE_HEALTHCHECKS", "13"),
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
    assert_eq!(first_column(table), FLAGS.iter().map(|(flag, _)| *flag).collect());
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

/// Ends at once: nobody has that address (RFC 5737), and all arguments are read before.
fn agent(arguments: &[String], variables: &[(String, &str)]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(folder_of_programs().join("mig-agent"));
    command.args(["--listen=192.0.2.1:9", "--nvml-library=/nowhere"]).args(arguments);
    command.arg(format!("--state-dir={}", folder.path().display())).env_clear().envs(variables.iter().cloned());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn variable(flag: &str) -> String {
    match flag {
        "--dev-root" => "NVIDIA_DEV_ROOT".to_owned(),
        _ => flag.trim_start_matches("--").replace('-', "_").to_uppercase(),
    }
}

#[test]
fn every_flag_of_nvidias_is_taken_or_refused_as_its_row_says() {
    let page = Page::read("docs/moving-from-nvidia.md");
    for row in &page.table("Flags and variables").rows {
        for flag in &row[0].codes {
            let value = FLAGS.iter().find(|(name, _)| name == flag).unwrap().1;
            let as_variable = agent(&[], &[(variable(flag), value)]);
            let as_flag = agent(&[format!("{flag}={value}")], &[]);
            let ways = if flag.starts_with("--") { vec![as_variable, as_flag] } else { vec![as_variable] };
            for (code, said) in ways {
                if row[1].text.starts_with("refused") {
                    assert!(code == Some(2) && said.contains(flag) && said.contains(value), "{flag}: {code:?} {said}");
                    continue;
                }
                assert!(code == Some(1) && said.contains("unable to listen"), "{flag}: {code:?} {said}");
                let has_none = said.contains(&format!("{flag} ({}) has no effect", variable(flag)));
                assert_eq!(has_none, row[1].text == "no effect", "{flag}: {said}");
            }
            // What asks for nothing is no news.
            let nothing = if value == "true" { "false" } else { "" };
            for value in [nothing, ""] {
                let (code, said) = agent(&[], &[(variable(flag), value)]);
                assert!(code == Some(1) && !said.contains("no effect"), "{flag}, {value:?}: {code:?} {said}");
            }
        }
    }
    for value in ["auto", "nvml"] {
        assert_eq!(agent(&[format!("--device-discovery-strategy={value}")], &[]).0, Some(1));
    }
    let (code, said) = agent(&["--kubelet-socket=/run/kubelet.sock".to_owned()], &[]);
    assert!(code == Some(2) && said.contains("--kubelet-root"), "{said}");
    let (code, said) =
        agent(&["--kubelet-socket=/a/device-plugins/kubelet.sock".to_owned(), "--kubelet-root=/b".to_owned()], &[]);
    assert!(code == Some(2) && said.contains("leave one out"), "{said}");
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
