//! The rules of health in the configuration file: they hold with the file, change with it, and go after flags and variables.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod node;

use std::collections::BTreeSet;
use std::fs;

use kubelet_sim::{Kubelet, Pod, What};
use node::{Agent, DEADLINE, G1, G3, Node, fake_library, listed};

/// What is wrong stays so for the whole test.
const SLOW: &str = "recovery: {application: 20m, hardware: 20m, unconfirmed: 20m, state: 20m, longest: 1h}";

/// A configuration file with these rules.
fn write(node: &Node, health: &str) -> String {
    let file = node.path("config.yaml");
    fs::write(&file, format!("version: v1\nhealth:\n  {}\n", health.replace('\n', "\n  "))).unwrap();
    format!("--config-file={}", file.display())
}

fn rules(xids: &[(u64, &str)], more: &str) -> String {
    let lines: Vec<String> =
        xids.iter().map(|(xid, policy)| format!("{{numbers: [{xid}], policy: {policy}}}")).collect();
    format!("xids: [{}]\n{more}", lines.join(", "))
}

async fn becomes(kubelet: &Kubelet, unhealthy: &[&String]) {
    let expected: BTreeSet<String> = unhealthy.iter().map(|uuid| (*uuid).clone()).collect();
    let now = |resources: &std::collections::BTreeMap<String, kubelet_sim::Resource>| -> BTreeSet<String> {
        let devices = resources.get(G1).map(|resource| resource.devices.as_slice()).unwrap_or_default();
        devices.iter().filter(|device| device.health != "Healthy").map(|device| device.id.clone()).collect()
    };
    let outcome = kubelet.wait_for(|resources| now(resources) == expected, DEADLINE).await;
    assert!(outcome.is_ok(), "expected {expected:?}, but unhealthy are {:?}", now(&kubelet.resources()));
}

fn xid(node: &Node, xid: u64, uuid: &str) {
    let (gpu, part) = node.place(uuid);
    node.xid(gpu, xid, Some(part));
}

#[tokio::test]
async fn they_hold_and_change_while_slices_are_unhealthy() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let slices = node.uuids("1g.5gb");
    let mut agent = node.agent(&[&write(&node, &rules(&[(31, "unhealthy")], SLOW))]);
    listed(&kubelet, G1, 9, 9).await;
    listed(&kubelet, G3, 1, 1).await;
    agent.ready(|status, _| status.contains("200"));
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    xid(&node, 31, &slices[0]);
    becomes(&kubelet, &[&slices[0]]).await;
    xid(&node, 94, &slices[1]);
    becomes(&kubelet, &[&slices[0], &slices[1]]).await;

    // The other way round: what was wrong by the old rules alone is well at once, though it had 20 minutes to go.
    write(&node, &rules(&[(94, "ignore"), (13, "unhealthy")], SLOW));
    becomes(&kubelet, &[]).await;
    for (number, slice) in [(94, &slices[2]), (31, &slices[3]), (13, &slices[4])] {
        xid(&node, number, slice);
    }
    becomes(&kubelet, &[&slices[4]]).await;
    // Other times.
    write(&node, &rules(&[(13, "unhealthy")], "recovery: {application: 100ms}"));
    becomes(&kubelet, &[]).await;
    // None at all: as built in.
    fs::write(node.path("config.yaml"), "version: v1\n").unwrap();
    agent.line("makes nothing Unhealthy");
    let in_force = || agent.log().matches("these XIDs make nothing Unhealthy now").count();
    while in_force() < 4 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    xid(&node, 13, &slices[5]);
    xid(&node, 94, &slices[6]);
    becomes(&kubelet, &[&slices[6]]).await;
    let registered = agent.log().lines().filter(|line| line.contains(G1) && line.contains("\"registered")).count();
    assert_eq!(registered, 1, "nothing was restarted for it:\n{}", agent.log());
}

#[tokio::test]
async fn bad_ones_leave_the_last_good_ones_in_force() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let slices = node.uuids("1g.5gb");
    let mut agent = node.agent(&[&write(&node, &rules(&[(31, "unhealthy")], SLOW))]);
    listed(&kubelet, G1, 9, 9).await;
    for (bad, words) in [
        ("xids:\n- numbers: [31]\n  policy: sometimes", "line 5"),
        ("xids: [{policy: ignore}]", "health: a line of xids has no numbers"),
        ("recovery: {longest: 1s}", "health: recovery.longest must not be less"),
        ("ignoredXIDs: [31]", "ignoredXIDs"),
    ] {
        write(&node, bad);
        let line = agent.line(words);
        assert!(line.contains("the last good one stays in force"), "{line}");
        agent.ready(|status, body| status.contains("200") && body.contains(words));
    }
    xid(&node, 31, &slices[0]);
    becomes(&kubelet, &[&slices[0]]).await;
}

/// The configuration is read after the faults that were written down, and may come late.
#[tokio::test]
async fn what_they_made_unhealthy_is_so_after_a_restart() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let slices = node.uuids("1g.5gb");
    let config = write(&node, &rules(&[(31, "unhealthy")], SLOW));
    let agent = node.agent(&[&config]);
    listed(&kubelet, G1, 9, 9).await;
    xid(&node, 31, &slices[0]);
    becomes(&kubelet, &[&slices[0]]).await;
    let written = |uuid: &str| {
        while !fs::read_to_string(node.path("run/health.json")).unwrap_or_default().contains(uuid) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    written(&slices[0]);
    agent.kill();
    kubelet.wait_for(|now| now.get(G1).is_none_or(|resource| resource.allocatable == 0), DEADLINE).await.unwrap();
    // At first there is none that could be used.
    let good = fs::read_to_string(node.path("config.yaml")).unwrap();
    fs::write(node.path("config.yaml"), "health: {xids: 7}\n").unwrap();
    let since = kubelet.events().len();
    let mut agent = node.agent(&[&config]);
    agent.ready(|status, body| status.contains("503") && body.contains("configuration: "));
    // What happens meanwhile is written down beside what was.
    xid(&node, 94, &slices[1]);
    written(&slices[1]);
    agent.kill();
    let mut agent = node.agent(&[&config]);
    agent.ready(|status, body| status.contains("503") && body.contains("configuration: "));
    fs::write(node.path("config.yaml"), good).unwrap();
    listed(&kubelet, G1, 9, 7).await;
    becomes(&kubelet, &[&slices[0], &slices[1]]).await;
    let was_offered = |event: kubelet_sim::Event| matches!(event.what, What::List { healthy: 9, .. });
    assert!(!kubelet.events_since(since).into_iter().any(was_offered), "at no time was it offered as well");
}

#[tokio::test]
async fn flags_and_variables_go_before_them() {
    let policy = "xids: [{numbers: [31], policy: ignore}]\nrecovery: {application: 20m, hardware: 20m, unconfirmed: 20m, longest: 1h}\n";
    for (flags, variables, ignored, counts) in [
        (true, vec![], 31, 94),
        (false, vec![("DP_DISABLE_HEALTHCHECKS", "31")], 31, 8),
        (false, vec![("DP_ENABLE_HEALTHCHECKS", "94")], 13, 94),
        (false, vec![("DP_ENABLE_HEALTHCHECKS", "")], 94, 31),
    ] {
        let node = Node::new("demo");
        let kubelet = node.kubelet().await;
        let slices = node.uuids("1g.5gb");
        let config = write(&node, &rules(&[(31, "unhealthy"), (94, "ignore")], SLOW));
        fs::write(node.path("policy.yaml"), policy).unwrap();
        let policy = format!("--health-policy={}", node.path("policy.yaml").display());
        let arguments = if flags { vec![config.as_str(), policy.as_str()] } else { vec![config.as_str()] };
        let mut command = node.agent_command(&fake_library(), &arguments);
        command.envs(variables);
        let mut agent = Agent::start(command, node.path("agent.log"));
        listed(&kubelet, G1, 9, 9).await;
        agent.ready(|status, _| status.contains("200"));
        xid(&node, ignored, &slices[0]);
        agent.line(&format!("XID {ignored} makes nothing Unhealthy"));
        xid(&node, counts, &slices[1]);
        becomes(&kubelet, &[&slices[1]]).await;
        let warned = agent.log().contains("have no effect here: health (--health-policy goes before it)");
        assert_eq!(warned, flags, "{}", agent.log());
    }
}

#[tokio::test]
async fn gpus_that_cannot_be_watched_are_offered_if_they_say_so_and_no_flag_does() {
    let node = Node::new("demo");
    node.add_fault("nvmlEventSetCreate", Some("NOT_SUPPORTED"), None);
    let kubelet = node.kubelet().await;
    let config = write(&node, "advertiseUnwatched: true\nrecovery: {state: 50ms}");
    let agent = node.agent(&[&config]);
    listed(&kubelet, G1, 9, 9).await;
    write(&node, "recovery: {state: 50ms}");
    listed(&kubelet, G1, 9, 0).await;
    write(&node, "advertiseUnwatched: true\nrecovery: {state: 50ms}");
    listed(&kubelet, G1, 9, 9).await;
    agent.kill();
    kubelet.wait_for(|now| now.get(G1).is_none_or(|resource| !resource.registered), DEADLINE).await.unwrap();
    let _agent = node.agent(&[&config, "--advertise-unwatched=false"]);
    listed(&kubelet, G1, 9, 0).await;
}
