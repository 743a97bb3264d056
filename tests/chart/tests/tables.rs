//! What the chart says of itself is so: versions, the README's tables, the schema, the agent's variables.

#![allow(clippy::expect_used, clippy::panic, reason = "clippy takes only test functions for tests")]

use std::collections::BTreeSet;
use std::process::Command;

use chart::{WHOLE, assert_snapshot, default_values, flattened, helms, repository, snapshots, tables, text_of};
use serde_json::Value;

const README: &str = "charts/mig-agent/README.md";
const BEGIN: &str = "<!-- from values.yaml -->\n";
const END: &str = "<!-- end -->";

/// `SNAPSHOTS=overwrite` writes them anew.
#[test]
fn the_readmes_tables_are_those_of_values_yaml() {
    let readme = text_of(README);
    let (before, rest) = readme.split_once(BEGIN).expect("where the tables begin");
    let (_, after) = rest.split_once(END).expect("where they end");
    assert_snapshot(README, &format!("{before}{BEGIN}{}\n{END}{after}", tables()));
}

fn schema() -> Value {
    serde_json::from_str(&text_of("charts/mig-agent/values.schema.json")).expect("the schema is JSON")
}

#[test]
fn each_value_of_the_schema_is_a_default_or_named_as_not_honoured() {
    let schema = schema();
    let known: BTreeSet<&str> =
        schema["properties"].as_object().expect("properties").keys().map(String::as_str).collect();
    let defaults = default_values();
    let defaults: BTreeSet<&str> = defaults.as_object().expect("a map").keys().map(String::as_str).collect();
    assert_eq!(defaults.difference(&known).count(), 0, "{defaults:?}");
    let readme = text_of(README);
    // What a parent chart adds, whatever the chart.
    for name in known.difference(&defaults).filter(|name| !["enabled", "global"].contains(name)) {
        let named = readme.lines().any(|line| line.starts_with(&format!("| `{name}")));
        assert!(named, "{README} does not say what comes of {name}");
    }
}

/// Nothing may be misspelt anywhere, but where the keys are the user's or Kubernetes' own.
#[test]
fn the_schema_refuses_unknown_keys_everywhere() {
    let schema = schema();
    for (path, default) in flattened(&default_values(), &WHOLE) {
        let mut at = &schema;
        for key in path.split('.') {
            at = resolved(&schema, at);
            assert_eq!(at["additionalProperties"], Value::Bool(false), "beside {path}");
            at = &at["properties"][key];
        }
        let types = &resolved(&schema, at)["type"];
        let known = types.is_string() || types.is_array() || resolved(&schema, at)["enum"].is_array();
        assert!(known, "{path} ({default}) may be anything");
    }
}

fn resolved<'v>(schema: &'v Value, at: &'v Value) -> &'v Value {
    let definition = at["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/definitions/"));
    definition.map_or(at, |name| &schema["definitions"][name])
}

#[test]
fn the_charts_version_is_the_workspaces() {
    let chart: Value = serde_saphyr::from_str(&text_of("charts/mig-agent/Chart.yaml")).expect("Chart.yaml is YAML");
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
}

/// A variable that the agent does not know would be ignored without a word.
#[test]
fn the_agent_knows_each_variable_that_the_chart_sets() {
    let cargo =
        Command::new(env!("CARGO")).args(["run", "--quiet", "--locked", "-p", "mig-agent", "--", "--help"]).output();
    let output = cargo.expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut seen = BTreeSet::new();
    for name in snapshots() {
        let text = text_of(&format!("tests/chart/snapshots/{name}.yaml"));
        let agent = text.split("---\n").find(|document| document.contains("kind: DaemonSet")).expect("a DaemonSet");
        let names = agent.lines().filter_map(|line| line.strip_prefix("            - name: "));
        seen.extend(names.filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')).map(str::to_owned));
    }
    // NVIDIA's runtime reads these, and tests/chart/values/changed.yaml adds what follows.
    for others in [
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
        "NVIDIA_MIG_MONITOR_DEVICES",
        "RUST_BACKTRACE",
        "NODE_IP",
        // The agent takes it, does nothing and says so, which its help does not mention.
        "FAIL_ON_INIT_ERROR",
    ] {
        assert!(seen.remove(others), "{others}");
    }
    assert!(seen.len() > 15, "{seen:?}");
    for name in seen {
        assert!(help.contains(&format!("[env: {name}=")), "mig-agent does not know {name}");
    }
}

/// What `helm package` makes can be installed: nothing that it needs is left out by .helmignore.
#[test]
fn a_package_of_it_renders_the_same() {
    for helm in helms() {
        let folder = tempfile::tempdir().expect("a folder");
        let packed = helm.run(&["package", "charts/mig-agent", "--destination", &folder.path().to_string_lossy()]);
        assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
        let package = folder.path().join(format!("mig-agent-{}.tgz", env!("CARGO_PKG_VERSION")));
        let arguments = ["template", "mig-agent", &package.to_string_lossy(), "--namespace", "mig-agent"];
        let output = helm.run(&arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        let text: String = text.lines().filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
        assert_eq!(text, text_of("tests/chart/snapshots/default.yaml"));
    }
    assert!(repository("charts/mig-agent/README.md").exists());
}
