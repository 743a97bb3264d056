//! The metrics, the queries of docs/metrics.md and the alerts as Prometheus' own tool sees them. It is Debian's package
//! `prometheus`; PROMTOOL names another. What is skipped without it says so.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "clippy takes only test functions for tests"
)]

mod node;
mod scrape;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use node::{G1, Node, listed};
use scrape::Scrape;

fn repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)
}

/// The queries of the page, in its order.
fn queries() -> Vec<String> {
    let page = std::fs::read_to_string(repository("docs/metrics.md")).unwrap();
    let fences = page.split("```promql\n").skip(1);
    fences.map(|rest| rest.split("```").next().unwrap().trim().to_owned()).collect()
}

fn query(words: &str) -> String {
    queries().into_iter().find(|query| query.contains(words)).unwrap_or_else(|| panic!("no query has {words}"))
}

/// Runs promtool; nothing if there is none.
fn promtool(arguments: &[&str], input: &str) -> Option<Output> {
    let program = std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into());
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = match command.spawn() {
        Ok(process) => process,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {} is not installed", program.display());
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(process.wait_with_output().unwrap())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[tokio::test]
async fn it_finds_nothing_to_improve_in_a_scrape() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let scrape = Scrape::of(&mut agent);
    let Some(output) = promtool(&["check", "metrics"], &scrape.text) else { return };
    let said = said(&output);
    // The one label that dcgm-exporter writes so.
    let faults: BTreeSet<&str> =
        said.lines().filter(|line| !line.starts_with("mig_agent_gpu_info label names")).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(output.status.code().is_some_and(|code| code == 0 || code == 3), "{:?}: {said}", output.status);
}

/// Needs no tool: a metric that was renamed must not stay in a query or an alert.
#[test]
fn queries_and_alerts_speak_of_metrics_that_there_are() {
    let page = std::fs::read_to_string(repository("docs/metrics.md")).unwrap();
    let alerts = std::fs::read_to_string(repository("charts/mig-agent/files/alerts.yaml")).unwrap();
    let used = queries().join("\n") + &alerts;
    let names =
        used.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("mig_agent_"));
    let mut count = 0;
    for name in names {
        assert!(page.contains(&format!("\n| `{name}` |")), "{name} is not in docs/metrics.md");
        count += 1;
    }
    assert!(count > 10, "only {count} were found");
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(page.contains(&format!("\n| `{alert}` |")), "{alert} is not in docs/metrics.md");
    }
}

#[test]
fn every_query_of_the_page_is_promql() {
    let directory = tempfile::tempdir().unwrap();
    let rule =
        |(number, query): (usize, &String)| serde_json::json!({ "record": format!("query:{number}"), "expr": query });
    let rules: Vec<_> = queries().iter().enumerate().map(rule).collect();
    assert!(rules.len() >= 6);
    // JSON is YAML too.
    let file = directory.path().join("rules.yaml");
    std::fs::write(&file, serde_json::json!({ "groups": [{ "name": "page", "rules": rules }] }).to_string()).unwrap();
    let Some(output) = promtool(&["check", "rules", file.to_str().unwrap()], "") else { return };
    assert!(output.status.success(), "{}", said(&output));
}

const GPU: &str = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77";

/// Two GPU instances, one of them with two compute instances, as the agent and dcgm-exporter would tell of them.
fn series() -> serde_json::Value {
    let slice = |metric: &str, id: u32, mig: &str, resource: &str, more: &str| {
        format!(
            "{metric}{{instance=\"agent\",gpu=\"0\",UUID=\"{GPU}\",GPU_I_ID=\"{id}\",GPU_I_PROFILE=\"3g.20gb\",mig_uuid=\"{mig}\",resource=\"{resource}\"{more}}}"
        )
    };
    let dcgm = |metric: &str, id: u32, pod: &str| {
        format!(
            "{metric}{{instance=\"dcgm\",gpu=\"0\",UUID=\"{GPU}\",device=\"nvidia0\",modelName=\"NVIDIA A100\",GPU_I_PROFILE=\"3g.20gb\",GPU_I_ID=\"{id}\",pod=\"{pod}\",namespace=\"default\"}}"
        )
    };
    let (whole, part) = ("nvidia.com/mig-3g.20gb", "nvidia.com/mig-1c.3g.20gb");
    let (info, state, allocated) = ("mig_agent_slice_info", "mig_agent_slice_state", ",state=\"allocated\"");
    let all = [
        (slice(info, 1, "MIG-a", whole, ""), "1x100"),
        (slice(info, 2, "MIG-b", part, ""), "1x100"),
        (slice(info, 2, "MIG-c", part, ""), "1x100"),
        (slice(state, 1, "MIG-a", whole, allocated), "1x100"),
        (slice(state, 2, "MIG-b", part, allocated), "1x100"),
        (slice(state, 2, "MIG-c", part, allocated), "0x100"),
        (dcgm("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 1, "train"), "0.5x100"),
        (dcgm("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 2, "idle"), "0x100"),
        (dcgm("DCGM_FI_DEV_FB_USED", 1, "train"), "1000x100"),
        (dcgm("DCGM_FI_DEV_FB_USED", 2, "idle"), "10x100"),
    ];
    all.map(|(series, values)| serde_json::json!({ "series": series, "values": values })).into()
}

fn expects(query: &str, samples: &[(&str, f64)]) -> serde_json::Value {
    let samples: Vec<_> =
        samples.iter().map(|(labels, value)| serde_json::json!({ "labels": labels, "value": value })).collect();
    serde_json::json!({ "expr": query, "eval_time": "90m", "exp_samples": samples })
}

fn run(test: &serde_json::Value, rules: &[&Path]) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("test.yaml");
    let tests = serde_json::json!({ "rule_files": rules, "evaluation_interval": "1m", "tests": [test] });
    std::fs::write(&file, tests.to_string()).unwrap();
    let Some(output) = promtool(&["test", "rules", file.to_str().unwrap()], "") else { return };
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn the_joins_with_dcgm_exporter_give_each_slice_its_numbers() {
    let slice = |name: &str, id: u32, mig: &str, resource: &str, more: &str| {
        format!(
            "{name}{{instance=\"agent\",gpu=\"0\",UUID=\"{GPU}\",GPU_I_ID=\"{id}\",GPU_I_PROFILE=\"3g.20gb\",mig_uuid=\"{mig}\",resource=\"{resource}\"{more}}}"
        )
    };
    let (whole, part) = ("nvidia.com/mig-3g.20gb", "nvidia.com/mig-1c.3g.20gb");
    let of = |pod: &str| format!(",pod=\"{pod}\",namespace=\"default\"");
    let busy = expects(
        &query("group_left (pod, namespace)"),
        &[
            (&slice("", 1, "MIG-a", whole, &of("train")), 0.5),
            (&slice("", 2, "MIG-b", part, &of("idle")), 0.0),
            (&slice("", 2, "MIG-c", part, &of("idle")), 0.0),
        ],
    );
    let idle =
        expects(&query("< 0.01"), &[(&slice("mig_agent_slice_state", 2, "MIG-b", part, ",state=\"allocated\""), 1.0)]);
    let memory = expects(
        &query("DCGM_FI_DEV_FB_USED"),
        &[(&format!("{{resource=\"{whole}\"}}"), 1000.0), (&format!("{{resource=\"{part}\"}}"), 20.0)],
    );
    let test =
        serde_json::json!({ "interval": "1m", "input_series": series(), "promql_expr_test": [busy, idle, memory] });
    run(&test, &[]);
}

#[test]
fn alerts_fire_for_what_they_name_and_for_nothing_else() {
    let alerts = repository("charts/mig-agent/files/alerts.yaml").canonicalize().unwrap();
    let labels = |more: serde_json::Value| {
        let mut labels = serde_json::json!({ "severity": "critical", "instance": "agent" });
        labels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        labels
    };
    // Bad from the 20th minute to the 40th.
    let bad = "0x19 1x20 0x20";
    let good = "1x19 0x20 1x20";
    let cases = [
        (
            "MigGpuUnhealthy",
            r#"mig_agent_gpu_healthy{instance="agent",gpu="3"}"#,
            good,
            serde_json::json!({ "gpu": "3" }),
        ),
        (
            "MigHealthFlaps",
            r#"mig_agent_health_transitions_total{instance="agent",of="slice",to="unhealthy",reason="Xid"}"#,
            "0x29 1+1x7 8x50",
            serde_json::json!({ "severity": "warning", "of": "slice", "reason": "Xid" }),
        ),
        (
            "MigResourceNotRegistered",
            r#"mig_agent_registered{instance="agent",resource="nvidia.com/mig-1g.5gb"}"#,
            good,
            serde_json::json!({ "resource": "nvidia.com/mig-1g.5gb" }),
        ),
        (
            "MigDriverStalled",
            r#"mig_agent_driver_state{instance="agent",state="stalled"}"#,
            bad,
            serde_json::json!({ "state": "stalled" }),
        ),
        (
            "MigDriverFailed",
            r#"mig_agent_driver_state{instance="agent",state="failed"}"#,
            bad,
            serde_json::json!({ "state": "failed" }),
        ),
        (
            "MigAgentNotReady",
            r#"mig_agent_ready{instance="agent"}"#,
            good,
            serde_json::json!({ "severity": "warning" }),
        ),
        (
            "MigConfigNotInForce",
            r#"mig_agent_config_last_reload_successful{instance="agent"}"#,
            good,
            serde_json::json!({ "severity": "warning" }),
        ),
        (
            "MigPodResourcesUnreadable",
            r#"mig_agent_podresources_readable{instance="agent"}"#,
            good,
            serde_json::json!({ "severity": "warning" }),
        ),
        (
            "MigSliceUnhealthy",
            r#"mig_agent_slice_state{instance="agent",mig_uuid="MIG-a",state="unhealthy"}"#,
            bad,
            serde_json::json!({ "severity": "warning", "mig_uuid": "MIG-a", "state": "unhealthy" }),
        ),
        (
            "MigAllocationsRefused",
            r#"mig_agent_allocation_errors_total{instance="agent",resource="nvidia.com/gpu",code="NotFound"}"#,
            "0x29 1x50",
            serde_json::json!({ "severity": "warning", "resource": "nvidia.com/gpu", "code": "NotFound" }),
        ),
    ];
    let text = std::fs::read_to_string(&alerts).unwrap();
    assert_eq!(text.matches("- alert: ").count(), cases.len(), "an alert has no case here");
    for (alert, series, values, more) in cases {
        let at = |time: &str, fires: bool| {
            // Only which alerts fire is of interest, not their words.
            let query = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}");
            let mut all = labels(more.clone());
            all["alertname"] = alert.into();
            all["alertstate"] = "firing".into();
            let pairs: Vec<String> =
                all.as_object().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect();
            let sample = serde_json::json!({ "labels": format!("ALERTS{{{}}}", pairs.join(",")), "value": 1 });
            serde_json::json!({ "expr": query, "eval_time": time, "exp_samples": if fires { vec![sample] } else { vec![] } })
        };
        let checks = [at("15m", false), at("37m", true), at("58m", false)];
        let input = serde_json::json!([{ "series": series, "values": values }]);
        run(&serde_json::json!({ "interval": "1m", "input_series": input, "promql_expr_test": checks }), &[&alerts]);
    }
}
