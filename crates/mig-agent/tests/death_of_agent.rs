//! The agent is killed at any time, and upgraded; pods come and go all the while, and some were there before.

mod death;
mod node;

use std::time::{Duration, Instant};

use death::footprint::{Footprint, sockets};
use death::{G2, SOCKETS, Scenery, chance};
use kubelet_sim::What;
use node::{Agent, DEADLINE, G1, G3, Node, fake_library, listed};
use rustix::process::Signal;

/// Rules 1, 3, 6 and 8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_is_killed_at_any_point() {
    let mut rng = chance();
    let mut scenery = Scenery::new().await;
    let began = Instant::now();
    let first = scenery.node.agent(&[]);
    scenery.inhabit().await;
    // From before its first line to well after its first pod.
    let longest = u64::try_from(began.elapsed().as_micros()).unwrap() * 2;
    let stream = scenery.stream(&mut rng);
    first.kill();
    for round in 0..60 {
        let agent = scenery.node.agent(&[]);
        tokio::time::sleep(Duration::from_micros(rng.u64(0..longest))).await;
        if round % 8 == 0 {
            scenery.all_listed().await;
            stream.admits(1).await;
        }
        // Sometimes the kubelet goes with it, in either order.
        match rng.u8(0..8) {
            0 => {
                agent.kill();
                scenery.kubelet.restart().await.unwrap();
            }
            1 => {
                scenery.kubelet.kill().await;
                agent.kill();
                scenery.kubelet.start_again().await.unwrap();
            }
            _ => agent.kill(),
        }
    }
    let agent = scenery.node.agent(&[]);
    scenery.settle(stream).await;
    assert_eq!(sockets(&scenery.node.kubelet_root()), SOCKETS, "what the dead left behind was replaced");
    drop(agent);
}

/// What chance may miss: each in the middle of one thing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_is_killed_in_the_middle_of_each_thing_that_it_does() {
    let mut rng = chance();
    let mut scenery = Scenery::new().await;
    let first = scenery.node.agent(&[]);
    scenery.inhabit().await;
    let stream = scenery.stream(&mut rng);
    first.kill();
    type Point = fn(&What) -> bool;
    let points: [(&str, Point); 6] = [
        ("it asks to be registered", |what| matches!(what, What::RegisterReceived { .. })),
        ("it is registered", |what| matches!(what, What::Registered { .. })),
        ("its stream is opened", |what| matches!(what, What::StreamOpened { resource } if resource == G2)),
        ("its list is sent", |what| matches!(what, What::List { resource, .. } if resource == G1)),
        // Which Allocate follows.
        ("it has been asked for its preference", |what| matches!(what, What::Preferred { .. })),
        ("it has answered Allocate", |what| matches!(what, What::Allocated { .. })),
    ];
    for round in 0..5 {
        for (point, is_it) in points {
            let seen = scenery.kubelet.events().len();
            let agent = scenery.node.agent(&[]);
            let event = scenery.kubelet.wait_for_event(seen, is_it, DEADLINE).await;
            event.unwrap_or_else(|error| panic!("round {round}, when {point}: {error}"));
            agent.kill();
        }
    }
    let _agent = scenery.node.agent(&[]);
    scenery.settle(stream).await;
}

/// Rules 1 and 3: the layout changes under it, and what pods hold is listed for as long as they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_is_killed_while_the_layout_changes() {
    const HALVES: &str = "gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}, {profile: 3g.20gb}]}]";
    const SEVENTHS: &str =
        "gpus: [{model: A100-SXM4-40GB, instances: [{profile: 1g.5gb}, {profile: 1g.5gb}, {profile: 2g.10gb}]}]";
    let mut rng = chance();
    let mut scenery = Scenery::new().await;
    let mut agent = scenery.node.agent(&[]);
    scenery.inhabit().await;
    let stream = scenery.stream(&mut rng);
    for round in 0..24 {
        scenery.node.recut(if round % 2 == 0 { HALVES } else { SEVENTHS });
        tokio::time::sleep(Duration::from_millis(rng.u64(0..120))).await;
        agent.kill();
        agent = scenery.node.agent(&[]);
        if round % 4 == 3 {
            // The resident's id first: what it holds was destroyed long ago.
            listed(&scenery.kubelet, G2, 2, 1).await;
        }
    }
    scenery.node.recut(HALVES);
    listed(&scenery.kubelet, G3, 2, 2).await;
    let book = stream.stop().await;
    scenery.residents_have_theirs().await;
    println!("{book:?}");
    // They leave, and with them the last trace of what is no more.
    for pod in scenery.kubelet.pods() {
        scenery.kubelet.delete(&pod).await;
    }
    listed(&scenery.kubelet, G1, 0, 0).await;
    listed(&scenery.kubelet, G2, 0, 0).await;
    listed(&scenery.kubelet, G3, 2, 2).await;
    scenery.violations();
}

/// One of many, each with a log of its own.
fn another(node: &Node, number: usize) -> Agent {
    Agent::start(node.agent_command(&fake_library(), &[]), node.path(&format!("agent-{number}.log")))
}

/// As a DaemonSet does it with `maxSurge: 1`: both are there for a while, and either may be the one that ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_overlap_and_either_of_the_two_may_end() {
    let mut rng = chance();
    let mut scenery = Scenery::new().await;
    let mut serving = another(&scenery.node, 0);
    scenery.inhabit().await;
    let stream = scenery.stream(&mut rng);
    for round in 1..=16 {
        let waits = rng.u8(0..3);
        if waits == 2 {
            // Otherwise the new one may well be the first to take over from the one before.
            serving.ready(|status, _| status.contains("200"));
        }
        let mut newer = another(&scenery.node, round);
        match waits {
            0 => {}
            1 => tokio::time::sleep(Duration::from_millis(rng.u64(0..60))).await,
            _ => {
                newer.ready(|status, body| {
                    status.contains("503") && body.matches("another mig-agent serves").count() == 3
                });
                // Whoever waits takes nothing from the one that serves.
                stream.admits(2).await;
            }
        }
        // Now and then the new one is taken back.
        let (mut ends, stays) = if rng.u8(0..4) == 0 { (newer, serving) } else { (serving, newer) };
        if rng.bool() {
            // Before its first line it dies of it like others.
            ends.line("serving HTTP");
            ends.send(Signal::TERM);
            assert_eq!(ends.ended().code(), Some(0));
        } else {
            ends.kill();
        }
        serving = stays;
        if rng.bool() {
            serving.ready(|status, _| status.contains("200"));
            stream.admits(1).await;
        }
    }
    scenery.all_listed().await;
    // What the kubelet has may still be the other's.
    serving.ready(|status, _| status.contains("200"));
    let before = Footprint::of(&serving);
    for round in 17..=20 {
        let newer = another(&scenery.node, round);
        stream.admits(3).await;
        newer.kill();
    }
    scenery.settle(stream).await;
    before.is_kept_by(&serving).await;
    assert_eq!(sockets(&scenery.node.kubelet_root()), SOCKETS);
}
