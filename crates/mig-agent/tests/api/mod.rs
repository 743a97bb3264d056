//! A small API server with one Node, over HTTP. It does what the real one was seen to do with the requests that labels take:
//! metadata of the Node, server-side apply with its owners, conflicts and withdrawals, and watching that one Node; where its
//! status is asked for, that too, with JSON patches.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

const TOKEN: &str = "the-agents-token";
/// Who set the labels that were there before.
const OTHER: &str = "somebody";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Obliges,
    Forbids,
    Fails,
    Hangs,
    /// Shows the Node, and lets nobody watch it.
    ForbidsWatches,
    /// Shows all, and lets a policy forbid each change.
    Denies,
}

pub(crate) struct ApiServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    node: String,
    mood: Mood,
    /// Value and owners.
    labels: BTreeMap<String, (String, BTreeSet<String>)>,
    /// Of whoever is to see and change it; nothing where only metadata is to be had.
    status: Option<Value>,
    /// What the kubelet writes in the moment before the next patch: a resource and its number.
    surprise: Option<(String, String)>,
    requests: Vec<String>,
}

impl ApiServer {
    /// With a Node of this name, whose labels somebody else has set.
    pub(crate) fn start(node: &str, labels: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let owned = |(name, value): &(&str, &str)| {
            ((*name).to_owned(), ((*value).to_owned(), BTreeSet::from([OTHER.to_owned()])))
        };
        let labels = labels.iter().map(owned).collect();
        let state = Arc::new(Mutex::new(State::new(node, Mood::Obliges, labels)));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { address, state }
    }

    /// One that nobody answers for.
    pub(crate) fn gone(node: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { address, state: Arc::new(Mutex::new(State::new(node, Mood::Hangs, BTreeMap::new()))) }
    }

    /// What leads a client here.
    pub(crate) fn kubeconfig(&self) -> String {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        config.to_string()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn becomes(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// As somebody else would, with force.
    pub(crate) fn set(&self, name: &str, value: Option<&str>) {
        let labels = &mut self.state().labels;
        match value {
            Some(value) => labels.insert(name.to_owned(), (value.to_owned(), BTreeSet::from([OTHER.to_owned()]))),
            None => labels.remove(name),
        };
    }

    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.state().labels.iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect()
    }

    /// As the kubelet does: in both lists.
    pub(crate) fn amount(&self, resource: &str, amount: &str) {
        self.state().amount(resource, amount);
    }

    /// As the kubelet does in the moment before the next patch.
    pub(crate) fn amount_before_patch(&self, resource: &str, amount: &str) {
        self.state().surprise = Some((resource.to_owned(), amount.to_owned()));
    }

    /// The resources of a list of the status.
    pub(crate) fn amounts(&self, list: &str) -> BTreeMap<String, String> {
        let status = self.state().status.clone().unwrap_or_default();
        serde_json::from_value(status[list].clone()).unwrap_or_default()
    }

    /// Requests so far.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.state().requests.iter().filter(|request| *request == method).count()
    }
}

impl State {
    fn new(node: &str, mood: Mood, labels: BTreeMap<String, (String, BTreeSet<String>)>) -> Self {
        Self { node: node.to_owned(), mood, labels, status: None, surprise: None, requests: Vec::new() }
    }

    fn amount(&mut self, resource: &str, amount: &str) {
        let status = self.status.get_or_insert_with(|| json!({"capacity": {}, "allocatable": {}}));
        for list in ["capacity", "allocatable"] {
            status[list][resource] = json!(amount);
        }
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let header = |name: &str| {
            let found =
                head.iter().filter_map(|line| line.split_once(": ")).find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        let words: Vec<&str> = head[0].split(' ').collect();
        let (method, target) = (words[0], words[1]);
        let mood = {
            let mut state = state.lock().unwrap();
            state.requests.push(method.to_owned());
            state.mood
        };
        let (code, answer) = match mood {
            Mood::Hangs => loop {
                thread::sleep(Duration::from_secs(3600));
            },
            _ if header("authorization") != format!("Bearer {TOKEN}") => {
                failure(401, "Unauthorized", "Unauthorized", &json!([]))
            }
            Mood::Forbids => failure(403, "Forbidden", "nodes is forbidden: User cannot get it", &json!([])),
            Mood::ForbidsWatches if target.contains("watch=") => {
                failure(403, "Forbidden", "nodes is forbidden: User cannot watch it", &json!([]))
            }
            Mood::Fails => failure(500, "InternalError", "etcdserver: request timed out", &json!([])),
            Mood::Denies if method == "PATCH" => {
                let message = "nodes \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request";
                failure(422, "Invalid", message, &json!([]))
            }
            // An agent that took whole Nodes would take images and conditions too, once a minute.
            Mood::Obliges
                if state.lock().unwrap().status.is_none() && !header("accept").contains("as=PartialObjectMetadata") =>
            {
                failure(406, "NotAcceptable", "only metadata is to be had here", &json!([]))
            }
            // Who watches from nowhere asks for a list as well, which a server with an old etcd cannot give in a watch.
            Mood::Obliges if target.contains("watch=") && target.ends_with("resourceVersion=0") => {
                let message = "a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled";
                failure(500, "InternalError", message, &json!([]))
            }
            Mood::Obliges if target.contains("watch=") => {
                watch(&mut stream, state, target);
                return;
            }
            Mood::Obliges | Mood::Denies | Mood::ForbidsWatches => {
                let mut state = state.lock().unwrap();
                oblige(&mut state, method, target, &header("content-type"), &body)
            }
        };
        let text = answer.to_string();
        let head =
            format!("HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", text.len());
        if stream.write_all(format!("{head}{text}").as_bytes()).is_err() {
            return;
        }
    }
}

/// What there is, and each change of it, until somebody hangs up or the server's mood changes.
fn watch(stream: &mut TcpStream, state: &Mutex<State>, target: &str) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    if stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    let mut told = None;
    loop {
        let node = {
            let state = state.lock().unwrap();
            if state.mood != Mood::Obliges {
                return;
            }
            // Of whichever other Node nothing is shown: the name is a field selector.
            target.contains(&format!("fieldSelector=metadata.name%3D{}&", state.node)).then(|| metadata(&state))
        };
        if node.is_some() && node != told {
            let kind = if told.is_none() { "ADDED" } else { "MODIFIED" };
            let line = format!("{}\n", json!({"type": kind, "object": node}));
            if stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).is_err() {
                return;
            }
            told = node;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The Node, as far as it is to be had.
fn metadata(state: &State) -> Value {
    let labels: BTreeMap<&String, &String> = state.labels.iter().map(|(name, (value, _))| (name, value)).collect();
    let metadata = json!({"name": state.node, "labels": labels, "resourceVersion": "1"});
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

fn failure(code: u16, reason: &str, message: &str, causes: &Value) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
        "details": {"causes": causes}, "code": code,
    });
    (code, status)
}

fn oblige(state: &mut State, method: &str, target: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Some(name) = path.strip_prefix("/api/v1/nodes/") else {
        return failure(404, "NotFound", "the server could not find the requested resource", &json!([]));
    };
    let (name, is_status) = name.strip_suffix("/status").map_or((name, false), |name| (name, true));
    if name != state.node {
        return failure(404, "NotFound", &format!("nodes \"{name}\" not found"), &json!([]));
    }
    if method == "PATCH" && is_status {
        if let Some((resource, amount)) = state.surprise.take() {
            state.amount(&resource, &amount);
        }
        let Some(status) = state.status.clone().filter(|_| content_type == "application/json-patch+json") else {
            return failure(415, "UnsupportedMediaType", content_type, &json!([]));
        };
        let mut whole = json!({ "status": status });
        // All of it or nothing, and of what failed no more is said, as by the real one.
        if json_patch::patch(&mut whole, &serde_json::from_slice::<json_patch::Patch>(body).unwrap()).is_err() {
            let message = "the server responded with the status code 422 but did not return more information";
            return failure(422, "", message, &json!([]));
        }
        state.status = Some(whole["status"].take());
    } else if method == "PATCH" {
        let manager = query.split('&').find_map(|pair| pair.strip_prefix("fieldManager="));
        let (Some(manager), "application/apply-patch+yaml", false) =
            (manager, content_type, query.contains("force=true"))
        else {
            return failure(415, "UnsupportedMediaType", &format!("{content_type}, {query}"), &json!([]));
        };
        let patch: Value = serde_json::from_slice(body).unwrap();
        if (&patch["apiVersion"], &patch["kind"], &patch["metadata"]["name"])
            != (&json!("v1"), &json!("Node"), &json!(name))
        {
            return failure(400, "BadRequest", "this is no patch for that Node", &json!([]));
        }
        if let Err(causes) = apply(&mut state.labels, manager, &patch["metadata"]["labels"]) {
            return failure(409, "Conflict", "Apply failed with conflicts", &causes);
        }
    }
    let mut node = metadata(state);
    if let Some(status) = &state.status {
        node["kind"] = json!("Node");
        node["apiVersion"] = json!("v1");
        node["status"] = status.clone();
    }
    (200, node)
}

/// Server-side apply without force.
fn apply(
    labels: &mut BTreeMap<String, (String, BTreeSet<String>)>,
    manager: &str,
    wanted: &Value,
) -> Result<(), Value> {
    let wanted: BTreeMap<String, String> = serde_json::from_value(wanted.clone()).unwrap_or_default();
    let disputed = wanted.iter().filter(|(name, value)| {
        labels.get(*name).is_some_and(|(now, owners)| now != *value && owners.iter().any(|owner| owner != manager))
    });
    let cause = |(name, _): (&String, &String)| {
        json!({
            "reason": "FieldManagerConflict", "message": format!("conflict with \"{OTHER}\" using v1"),
            "field": format!(".metadata.labels.{name}"),
        })
    };
    let causes: Vec<Value> = disputed.map(cause).collect();
    if !causes.is_empty() {
        return Err(json!(causes));
    }
    // What the manager named before and names no more is no longer its; what is nobody's goes.
    for (name, (_, owners)) in labels.iter_mut() {
        if !wanted.contains_key(name) {
            owners.remove(manager);
        }
    }
    labels.retain(|_, (_, owners)| !owners.is_empty());
    for (name, value) in wanted {
        let (now, owners) = labels.entry(name).or_default();
        *now = value;
        owners.insert(manager.to_owned());
    }
    Ok(())
}
