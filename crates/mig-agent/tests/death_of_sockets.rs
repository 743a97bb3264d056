//! Sockets are deleted, and the kubelet's whole directory; pods come and go all the while.

mod death;
mod node;

use std::collections::BTreeMap;
use std::fs;

use death::footprint::{Footprint, sockets};
use death::{SOCKETS, Scenery, chance};
use kubelet_sim::{Pod, Resource};
use node::{DEADLINE, G1, Node, listed};

const DIRECTORY: &str = "kubelet/device-plugins";

fn registrations(resources: &BTreeMap<String, Resource>) -> BTreeMap<String, usize> {
    resources.iter().map(|(name, resource)| (name.clone(), resource.registrations)).collect()
}

/// Rule 7.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_sockets_are_deleted_again_and_again() {
    let mut rng = chance();
    let mut scenery = Scenery::new().await;
    let agent = scenery.node.agent(&[]);
    scenery.inhabit().await;
    let stream = scenery.stream(&mut rng);
    let mut before = None;
    for round in 0..16 {
        let counts = registrations(&scenery.kubelet.resources());
        let gone: Vec<&str> = SOCKETS.into_iter().filter(|_| rng.bool()).collect();
        for socket in &gone {
            // It may be just being made again.
            let _ = fs::remove_file(scenery.node.path(DIRECTORY).join(socket));
        }
        let again = |resources: &BTreeMap<String, Resource>| {
            gone.iter().all(|socket| {
                let name = format!("nvidia.com/{}", socket.trim_start_matches("mig-agent-").trim_end_matches(".sock"));
                resources
                    .get(&name)
                    .is_some_and(|resource| resource.registered && resource.registrations > counts[&name])
            })
        };
        // Now and then they vanish while they are being made.
        if rng.u8(0..4) > 0 {
            scenery.kubelet.wait_for(again, DEADLINE).await.unwrap();
            stream.admits(1).await;
        }
        if round == 4 {
            scenery.all_listed().await;
            before = Some(Footprint::of(&agent));
        }
    }
    scenery.settle(stream).await;
    before.unwrap().is_kept_by(&agent).await;
    assert_eq!(sockets(&scenery.node.kubelet_root()), SOCKETS);
}

/// The name is the agent's. A link is removed, and not what it leads to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_takes_the_sockets_name_makes_room() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let path = node.path(DIRECTORY).join("mig-agent-mig-1g.5gb.sock");
    let precious = node.path("precious");
    fs::write(&precious, "kept").unwrap();
    for link in [None, Some(node.path("nowhere")), Some(precious.clone())] {
        let before = registrations(&kubelet.resources())[G1];
        fs::remove_file(&path).unwrap();
        match link {
            None => fs::write(&path, "").unwrap(),
            Some(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
        }
        let is = |now: &BTreeMap<String, Resource>| now[G1].registrations > before && now[G1].allocatable == 9;
        kubelet.wait_for(is, DEADLINE).await.unwrap();
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    agent.line("mig-1g.5gb.sock is in the way");
}

/// Rule 7. The checkpoint goes with the directory; a kubelet that runs writes it again with the next pod.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_is_deleted_and_made_anew_again_and_again() {
    let mut rng = chance();
    let mut scenery = Scenery::new().await;
    let mut agent = scenery.node.agent(&[]);
    scenery.inhabit().await;
    let stream = scenery.stream(&mut rng);
    let mut before = None;
    for round in 0..8 {
        stream.admits(3).await;
        scenery.kubelet.remove_directory().unwrap();
        if rng.bool() {
            agent.ready(|status, body| status.contains("503") && body.contains("no kubelet at"));
        }
        scenery.kubelet.recreate_directory().unwrap();
        if rng.bool() {
            // The kubelet has no socket in it until it starts again, and does not know.
            agent.ready(|status, body| status.contains("503") && body.contains("no kubelet at"));
        }
        let _ = scenery.kubelet.admit(Pod::new("late").container("main", [(G1, 1)])).await;
        scenery.kubelet.delete("late").await;
        scenery.kubelet.restart().await.unwrap();
        scenery.all_listed().await;
        if round == 2 {
            before = Some(Footprint::of(&agent));
        }
    }
    scenery.settle(stream).await;
    before.unwrap().is_kept_by(&agent).await;
    assert_eq!(sockets(&scenery.node.kubelet_root()), SOCKETS);
}
