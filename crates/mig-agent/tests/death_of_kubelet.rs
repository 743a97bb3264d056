//! The kubelet dies at any time, stays away, or does not want plugins; pods come and go all the while.

mod death;
mod node;

use std::time::Duration;

use death::footprint::{Footprint, sockets};
use death::{SOCKETS, Scenery, chance};
use kubelet_sim::{RegistrationMode, What};
use node::{DEADLINE, G1, listed};

/// Rules 1, 6 and 7.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubelet_restarts_two_hundred_times_under_a_stream_of_pods() {
    let mut rng = chance();
    let mut scenery = Scenery::new().await;
    let mut agent = scenery.node.agent(&[]);
    scenery.inhabit().await;
    let stream = scenery.stream(&mut rng);
    let mut before = None;
    for round in 0..200 {
        match rng.u8(0..4) {
            0 => {
                scenery.kubelet.stop().await;
                scenery.kubelet.start_again().await.unwrap();
            }
            // Again before all have registered, or any.
            1 => {
                scenery.kubelet.restart().await.unwrap();
                tokio::time::sleep(Duration::from_micros(rng.u64(0..5000))).await;
            }
            _ => scenery.kubelet.restart().await.unwrap(),
        }
        if rng.u8(0..4) > 0 {
            listed(&scenery.kubelet, G1, 9, 9).await;
            stream.admits(rng.usize(0..3)).await;
        }
        if round == 40 {
            scenery.all_listed().await;
            agent.ready(|status, _| status.contains("200"));
            before = Some(Footprint::of(&agent));
        }
    }
    scenery.settle(stream).await;
    before.unwrap().is_kept_by(&agent).await;
    assert_eq!(sockets(&scenery.node.kubelet_root()), SOCKETS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_stays_away_is_waited_for_at_no_cost() {
    let mut rng = chance();
    let mut scenery = Scenery::new().await;
    let mut agent = scenery.node.agent(&[]);
    scenery.inhabit().await;
    let stream = scenery.stream(&mut rng);
    stream.admits(20).await;
    for ending in 0..2 {
        if ending == 0 {
            scenery.kubelet.stop().await;
        } else {
            scenery.kubelet.kill().await;
        }
        agent.ready(|status, _| status.contains("503"));
        let before = Footprint::of(&agent);
        let (calls, lines) = (scenery.node.calls_of("nvmlDeviceGetCount_v2"), agent.log().lines().count());
        // As many looks at the driver as there are in five minutes.
        while scenery.node.calls_of("nvmlDeviceGetCount_v2") < calls + 60 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        before.is_kept_by(&agent).await;
        let more = agent.log().lines().count() - lines;
        assert!(more < 30, "it wrote {more} lines meanwhile:\n{}", agent.log());
        scenery.kubelet.start_again().await.unwrap();
        stream.admits(20).await;
        agent.ready(|status, _| status.contains("200"));
    }
    scenery.settle(stream).await;
}

/// Each look is an attempt to connect to a socket that nobody listens at any more, or one that says no.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_refuses_plugins_is_asked_ever_more_seldom() {
    let mut rng = chance();
    let mut scenery = Scenery::new().await;
    let mut agent = scenery.node.agent(&[]);
    scenery.inhabit().await;
    let stream = scenery.stream(&mut rng);
    stream.admits(5).await;
    let before = Footprint::of(&agent);
    let seen = scenery.kubelet.events().len();
    scenery.kubelet.set_registration(RegistrationMode::Refusing);
    scenery.kubelet.restart().await.unwrap();
    let reason = "made to refuse every plugin";
    agent.ready(|status, body| status.contains("503") && body.matches(reason).count() == 3);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let refused = |what: &What| matches!(what, What::RegistrationFailed { resource, .. } if resource == G1);
    let times = scenery.kubelet.events_since(seen).iter().filter(|event| refused(&event.what)).count();
    assert!((2..=12).contains(&times), "{times} attempts");
    // At the latest when its next attempt is due, and at once when there is another kubelet.
    scenery.kubelet.set_registration(RegistrationMode::Answering);
    stream.admits(5).await;
    scenery.kubelet.set_registration(RegistrationMode::Refusing);
    scenery.kubelet.restart().await.unwrap();
    agent.ready(|status, body| status.contains("503") && body.matches(reason).count() == 3);
    scenery.kubelet.set_registration(RegistrationMode::Answering);
    scenery.kubelet.restart().await.unwrap();
    stream.admits(5).await;
    agent.ready(|status, _| status.contains("200"));
    scenery.settle(stream).await;
    before.is_kept_by(&agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_does_not_answer_register_harms_nobody() {
    let mut rng = chance();
    let mut scenery = Scenery::new().await;
    let mut agent = scenery.node.agent(&[]);
    scenery.inhabit().await;
    let stream = scenery.stream(&mut rng);
    stream.admits(5).await;
    let before = Footprint::of(&agent);
    for replaced in [false, true, true] {
        let seen = scenery.kubelet.events().len();
        scenery.kubelet.set_registration(RegistrationMode::Silent);
        scenery.kubelet.restart().await.unwrap();
        let asked = |what: &What| matches!(what, What::RegisterReceived { resource, .. } if resource == G1);
        scenery.kubelet.wait_for_event(seen, asked, DEADLINE).await.unwrap();
        agent.ready(|status, _| status.contains("503"));
        // It finds its voice again, or is replaced by one that has one: which is not waited for until the old one's time is up.
        scenery.kubelet.set_registration(RegistrationMode::Answering);
        if replaced {
            scenery.kubelet.restart().await.unwrap();
        }
        stream.admits(5).await;
        agent.ready(|status, _| status.contains("200"));
    }
    scenery.settle(stream).await;
    before.is_kept_by(&agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_hangs_up_again_and_again_is_not_fought() {
    let mut rng = chance();
    let mut scenery = Scenery::new().await;
    let mut agent = scenery.node.agent(&[]);
    scenery.inhabit().await;
    let stream = scenery.stream(&mut rng);
    stream.admits(5).await;
    let before = Footprint::of(&agent);
    let seen = scenery.kubelet.events().len();
    scenery.kubelet.set_registration(RegistrationMode::HangingUp);
    scenery.kubelet.restart().await.unwrap();
    agent.ready(|status, body| status.contains("503") && body.contains("tries ever more seldom"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let of = |what: &What| matches!(what, What::RegisterReceived { resource, .. } if resource == G1);
    let times = scenery.kubelet.events_since(seen).iter().filter(|event| of(&event.what)).count();
    assert!((4..=14).contains(&times), "{times} registrations");
    // A new kubelet is worth an attempt at once.
    scenery.kubelet.set_registration(RegistrationMode::Answering);
    scenery.kubelet.restart().await.unwrap();
    stream.admits(5).await;
    agent.ready(|status, _| status.contains("200"));
    scenery.settle(stream).await;
    before.is_kept_by(&agent).await;
}
