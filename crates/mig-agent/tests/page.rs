//! The status page of the agent as a process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

mod node;

use kubelet_sim::Pod;
use node::{G1, G3, Node, listed};

/// Everything between tags, so that a test reads what a person does.
fn words(page: &str) -> String {
    let mut text = String::new();
    let body = &page[page.find("<body>").unwrap()..];
    for (at, piece) in body.split('<').enumerate() {
        let piece = if at == 0 { piece } else { piece.split_once('>').unwrap().1 };
        text.push_str(piece);
        text.push(' ');
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn page(agent: &mut node::Agent, is: impl Fn(&str) -> bool) -> String {
    let deadline = std::time::Instant::now() + node::DEADLINE;
    loop {
        let (status, page) = agent.get("/");
        assert!(status.contains(" 200 "), "{status}");
        if is(&words(&page)) {
            return page;
        }
        assert!(std::time::Instant::now() < deadline, "never so:\n{}", words(&page));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[tokio::test]
async fn it_shows_the_driver_the_gpus_their_slices_and_the_resources() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&["--settle-time=50ms"]);
    listed(&kubelet, G1, 9, 9).await;
    listed(&kubelet, G3, 1, 1).await;
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let page = page(&mut agent, |words| {
        words.contains("Ready: 3 resources registered")
            && words.contains("3g.20gb allocated: default/train/main")
            && words.contains("1g.5gb free")
    });
    let words = words(&page);
    let gpu = &node.world().gpus[0].uuid;
    for expected in [
        "580.159.04".to_owned(),
        format!("GPU 0 NVIDIA A100-SXM4-40GB, MIG is on, {gpu}"),
        format!("3g.20gb allocated: default/train/main {}", node.uuids("3g.20gb")[0]),
        format!("1g.5gb free {}", node.uuids("1g.5gb")[0]),
        "nvidia.com/mig-1g.5gb for".to_owned(),
    ] {
        assert!(words.contains(&expected), "no {expected:?} in {words}");
    }
    // In the order of the memory slices, over as many as they take.
    let at = |style: &str| page.find(style).unwrap_or_else(|| panic!("no {style:?}"));
    assert!(at("grid-column: 1 / span 2") < at("grid-column: 3 / span 1"));
    assert!(at("grid-column: 3 / span 1") < at("grid-column: 5 / span 4"));
    for path in ["metrics", "readyz", "healthz", "api/v1/inventory"] {
        assert!(page.contains(&format!("href=\"{path}\"")), "no link to {path}");
        assert!(agent.get(&format!("/{path}")).0.contains(" 200 "), "{path}");
    }
}

#[tokio::test]
async fn it_says_why_the_agent_is_not_ready_and_what_is_not_offered() {
    let node = Node::written(
        "gpus: [{model: A100-SXM4-40GB, mig: true}, {model: A100-SXM4-40GB, instances: [{profile: 1g.5gb, placement: 3}]}]",
    );
    let mut agent = node.agent(&[]);
    let text = page(&mut agent, |words| words.contains("Not ready") && words.contains("no kubelet at"));
    let words = words(&text);
    for expected in ["Not offered: MIG is on and nothing is cut", "not cut 1g.5gb unknown"] {
        assert!(words.contains(expected), "no {expected:?} in {words}");
    }
    node.lose_gpu(1, true);
    page(&mut agent, |words| words.contains("1g.5gb unhealthy") && words.contains("fell off the bus"));
}

#[tokio::test]
async fn it_shows_what_vanished_while_a_pod_holds_it() {
    let node = Node::written("gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}]}]");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let held = node.uuids("3g.20gb").remove(0);
    node.recut("gpus: [{model: A100-SXM4-40GB, mig: true}]");
    page(&mut agent, |words| {
        words.contains(&format!(
            "No longer on a GPU Listed as Unhealthy for as long as a pod may hold them. {held} of {G3}"
        ))
    });
}

/// What a driver says is a text and no more, on the page and in the metrics.
#[tokio::test]
async fn hostile_names_stay_texts() {
    let name = r#"<script>alert(1)</script>" \ '><img src=x>"#;
    let model =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/A100-SXM4-40GB.yaml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hostile.yaml");
    let named = model.lines().map(|line| match line.starts_with("name: ") {
        true => format!("name: {}\n", serde_json::to_string(name).unwrap()),
        false => format!("{line}\n"),
    });
    std::fs::write(&file, named.collect::<String>()).unwrap();
    let scene = format!(
        "driver: {}\ngpus: [{{model: {}, instances: [{{profile: 1g.5gb}}]}}]",
        serde_json::to_string("\"><i>1").unwrap(),
        file.display()
    );
    let node = Node::written(&scene);
    let mut agent = node.agent(&[]);
    let page = page(&mut agent, |words| words.contains("GPU 0"));
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<i>"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
    let metrics = agent.get("/metrics").1;
    let escaped = name.replace('\\', r"\\").replace('"', "\\\"");
    assert!(metrics.contains(&format!("modelName=\"{escaped}\"")), "{metrics}");
}

#[tokio::test]
async fn a_browser_is_told_to_load_and_run_nothing() {
    use std::io::{Read as _, Write as _};
    let node = Node::new("demo");
    let mut agent = node.agent(&[]);
    let mut stream = std::net::TcpStream::connect(agent.http_address()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
    assert!(head.contains("content-security-policy: default-src 'none'; style-src 'unsafe-inline'"), "{head}");
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!body.contains(outside), "{outside} in {body}");
    }
}
