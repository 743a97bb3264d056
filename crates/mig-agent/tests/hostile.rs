//! Programs that have lost their way, or mean harm: at the HTTP port, which is open to the cluster, at the plugin's sockets,
//! which are root's, and in the driver's place. Probes and the kubelet are served all the while, and nothing grows.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod node;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use hyper_util::rt::TokioIo;
use kubelet::deviceplugin::device_plugin_client::DevicePluginClient;
use kubelet::deviceplugin::{AllocateRequest, ContainerAllocateRequest, Empty};
use kubelet_sim::{Pod, What};
use node::{Agent, DEADLINE, G1, G3, Node, listed};
use tonic::transport::{Channel, Endpoint};

const OURS: &str = "kubelet/device-plugins/mig-agent-mig-1g.5gb.sock";

/// Far above what it takes at rest in a debug build, and far below what any of these could fill.
const ENOUGH_MEMORY_KIB: u64 = 96 << 10;

fn descriptors(agent: &Agent) -> usize {
    std::fs::read_dir(agent.in_proc("fd")).unwrap().count()
}

fn memory_kib(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(agent.in_proc("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    matches!(stream.read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_answered_while_a_crowd_holds_its_connections_open() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let address = agent.http_address();
    // An answer that comes when all others have been hung up on is no answer to a probe. Time is what a busy machine
    // has none of, so one round in five has to be in time.
    let mut in_time = false;
    for _ in 0..5 {
        let mut crowd: Vec<TcpStream> = (0..500).map(|_| TcpStream::connect(&address).unwrap()).collect();
        for stream in &mut crowd {
            // It may have been hung up on already.
            let _ = stream.write_all(b"GET /healthz HT");
        }
        assert!(agent.get("/healthz").0.contains("200"));
        assert!(descriptors(&agent) < 150, "{}", descriptors(&agent));
        in_time |= is_open(crowd.last_mut().unwrap());
        if in_time {
            break;
        }
    }
    assert!(in_time, "the probe had to wait for the crowd to be sent away");
    kubelet.admit(Pod::new("train").container("main", [(G1, 1)])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_over_http_is_nobodys_problem_but_its_senders() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let address = agent.http_address();
    let huge = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(10_000));
    let pipelined = "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50_000);
    let body =
        format!("POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{}", 1_u64 << 40, "x".repeat(1 << 20));
    let odd: [&[u8]; 8] = [
        b"\0\0\0\0\0\0\0\0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /../../etc/shadow HTTP/1.1\r\nHost: a\r\n\r\n",
        huge.as_bytes(),
        many.as_bytes(),
        pipelined.as_bytes(),
        body.as_bytes(),
    ];
    let mut never_read = Vec::new();
    for bytes in odd.into_iter().cycle().take(80) {
        let mut stream = TcpStream::connect(&address).unwrap();
        // As much as is taken.
        stream.set_write_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
        let _ = stream.write_all(bytes);
        never_read.push(stream);
        assert!(agent.get("/healthz").0.contains("200"));
    }
    let mut answer = String::new();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(odd[3]).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(memory_kib(&agent) < ENOUGH_MEMORY_KIB, "{} KiB", memory_kib(&agent));
    assert!(descriptors(&agent) < 150);
    agent.ready(|status, _| status.contains("200"));
}

async fn caller(socket: &Path) -> DevicePluginClient<Channel> {
    let path = socket.to_owned();
    let dial = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(dial).await.unwrap();
    DevicePluginClient::new(channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_to_the_plugins_socket_takes_nothing_from_the_kubelet() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let socket = node.path(OURS);
    let mut silent: Vec<UnixStream> = Vec::new();
    for number in 0..500 {
        let mut stream = UnixStream::connect(&socket).unwrap();
        if number % 2 == 0 {
            let _ = stream.write_all(&[0xff; 4096]);
        }
        silent.push(stream);
    }
    // The kubelet's own way in is still open, though more wait than are let in.
    kubelet.admit(Pod::new("one").container("main", [(G1, 1)])).await.unwrap();
    assert!(descriptors(&agent) < 150, "{}", descriptors(&agent));
    let ended = |what: &What| matches!(what, What::StreamEnded { resource, .. } if resource == G1);
    assert!(!kubelet.events().iter().any(|event| ended(&event.what)));
    // And so is that of another kubelet, which comes while they wait.
    kubelet.restart().await.unwrap();
    listed(&kubelet, G1, 9, 9).await;
    let mut silent_again: Vec<UnixStream> = (0..500).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    kubelet.admit(Pod::new("two").container("main", [(G1, 1)])).await.unwrap();
    // Who comes last and asks something is let in.
    caller(&socket).await.get_device_plugin_options(Empty {}).await.unwrap();
    silent.append(&mut silent_again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_nobody_reads_and_requests_without_end_fill_nothing() {
    let node = Node::new("eight-by-seven");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 56, 56).await;
    let socket = node.path(OURS);
    let mut unread = Vec::new();
    for _ in 0..4 {
        let mut client = caller(&socket).await;
        for _ in 0..20 {
            unread.push(client.list_and_watch(Empty {}).await.unwrap());
        }
    }
    let ask = |ids: Vec<String>| AllocateRequest { containers: vec![ContainerAllocateRequest { ids }] };
    let mut client = caller(&socket).await;
    // More than is let in, then as many as are, and ids that would spoil a log.
    client.allocate(ask(vec!["x".repeat(1 << 20)])).await.unwrap_err();
    client.allocate(ask((0..1_000_000).map(|n| format!("{n}")).collect())).await.unwrap_err();
    let status = client.allocate(ask((0..5_000).map(|n| format!("MIG-{n:032}")).collect())).await.unwrap_err();
    assert!(status.message().len() < 300, "{}", status.message());
    client.allocate(ask(vec!["MIG-\n{\"level\":\"ERROR\"}\u{1b}[2J".to_owned()])).await.unwrap_err();
    let many = (0..64).map(|_| {
        let mut client = client.clone();
        let ids = (0..5_000).map(|n| format!("MIG-{n:032}")).collect();
        tokio::spawn(async move { client.allocate(ask(ids)).await.unwrap_err() })
    });
    for call in many.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert!(memory_kib(&agent) < ENOUGH_MEMORY_KIB, "{} KiB", memory_kib(&agent));
    // Each line of the log is one that the agent wrote.
    assert!(agent.log().lines().all(|line| line.starts_with("{\"timestamp\"")), "{}", agent.log());
    assert!(!agent.log().contains('\u{1b}'));
    kubelet.admit(Pod::new("train").container("main", [(G1, 7)])).await.unwrap();
    agent.ready(|status, _| status.contains("200"));
}

/// What says that the resource is registered is the kubelet's stream, and nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_somebody_else_does_not_pass_for_the_kubelets() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let mut client = caller(&node.path(OURS)).await;
    client.get_device_plugin_options(Empty {}).await.unwrap();
    let _stream = client.list_and_watch(Empty {}).await.unwrap();
    assert!(kubelet.hang_up(G1));
    kubelet.wait_for(|now| now[G1].registrations == 2 && now[G1].allocatable == 9, DEADLINE).await.unwrap();
}

/// Somebody has put a socket in the kubelet's place that takes registrations and answers none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_false_kubelet_is_left_for_the_real_one() {
    let node = Node::new("demo");
    let folder = node.path("kubelet/device-plugins");
    std::fs::create_dir_all(&folder).unwrap();
    let false_one = std::os::unix::net::UnixListener::bind(folder.join("kubelet.sock")).unwrap();
    let mut agent = node.agent(&[]);
    let (_taken, _) = false_one.accept().unwrap();
    agent.ready(|status, body| status.contains("503") && body.contains(G1));
    std::fs::remove_file(folder.join("kubelet.sock")).unwrap();
    let kubelet = node.kubelet().await;
    listed(&kubelet, G1, 9, 9).await;
    listed(&kubelet, G3, 1, 1).await;
}

/// A collector of logs that hangs has a pipe that is full. One line in each request's way would be enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_holds_nobody_up() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut command = tokio::process::Command::from(node.agent_command(&node::fake_library(), &[]));
    let mut agent = command.stderr(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    listed(&kubelet, G1, 9, 9).await;
    // A pipe has 64 KiB, and a line far more than 100 bytes.
    for number in 0..1000 {
        kubelet.allocate_raw(G1, vec![vec![format!("MIG-{number:060}")]]).await.unwrap_err();
    }
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let id = rustix::process::Pid::from_raw(agent.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    tokio::time::timeout(DEADLINE, agent.wait()).await.unwrap().unwrap();
}

fn built(node: &Node, name: &str, source: &str) -> PathBuf {
    let (library, file) = (node.path(&format!("{name}.so")), node.path(&format!("{name}.c")));
    std::fs::write(&file, source).unwrap();
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&file).status().unwrap();
    assert!(status.success());
    library
}

/// NVML's texts end up in the log, in pages, in metrics and labels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_driver_says_is_text_and_nothing_more() {
    let node = Node::bare();
    let kubelet = node.kubelet().await;
    let library = built(&node, "hostile", include_str!("node/hostile_driver.c"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mig-agent"));
    // As text, where a line that was smuggled in would pass for one of ours.
    command.env_clear().env("NVML_LIBRARY", library).env("POLL_INTERVAL", "50ms");
    command.args(["--listen", "127.0.0.1:0", "--kubelet-root"]).arg(node.kubelet_root());
    command
        .arg("--advertise-unwatched")
        .arg("--features-dir")
        .arg(node.path("features.d"))
        .arg("--state-dir")
        .arg(node.path("run"));
    std::fs::create_dir(node.path("features.d")).unwrap();
    let mut agent = Agent::start(command, node.path("agent.log"));
    let resource = listed(&kubelet, "nvidia.com/gpu", 1, 1).await;
    assert_eq!(resource.devices[0].id, "GPU-0a0a0a0a-0000-1111-2222-333333333333");
    agent.line("not offered");
    for line in agent.log().lines() {
        assert!(line.starts_with("20") && !line.contains('\u{1b}'), "{line:?}");
    }
    let log = agent.log();
    let address = log.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
    for page in ["/", "/metrics", "/readyz", "/api/v1/inventory"] {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {page} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!body.lines().any(|line| line.starts_with("injected")), "{page}: {body}");
        assert!(!head.contains("text/html") || !body.contains("<script>"), "{page}: {body}");
        assert!(!body.contains('\u{1b}'), "{page}");
    }
    for file in std::fs::read_dir(node.path("features.d")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.lines().any(|line| line.starts_with("injected")), "{text}");
    }
}
