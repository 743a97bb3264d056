//! What the pages quote of our programs' words is what the programs say: each piece of a quotation stands in their sources.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

use docs::fence::Fence;
use docs::page::Page;
use docs::repository;

/// Who may be quoted, and where their words are; others' are taken on trust.
const SPEAKERS: [(&str, &[&str]); 7] = [
    (
        "mig-agent",
        &[
            "crates/mig-agent/src",
            "crates/mig-device-plugin/src",
            "crates/kubelet/src",
            "crates/mig-nvml/src",
            "crates/mig-health/src",
            "crates/mig-model/src",
            "crates/driver-files/src",
        ],
    ),
    ("migctl", &["crates/migctl/src", "crates/kubelet/src", "crates/mig-nvml/src", "crates/mig-model/src"]),
    ("chart", &["charts/mig-agent/templates"]),
    ("kubernetes", &[]),
    ("runtime", &[]),
    ("nvidia", &[]),
    ("vllm", &[]),
];

/// The programs' texts: a string that goes on in the next line is one, and so are its parts around a `{placeholder}`.
fn sources(folders: &[&str]) -> String {
    let mut all = String::new();
    for folder in folders.iter().filter(|folder| repository::root().join(folder).exists()) {
        for extension in ["rs", "tpl", "yaml", "txt"] {
            for file in repository::files(folder, extension) {
                let text = repository::read(&file);
                // What a test expects is no proof of what is said.
                let said = text.split("#[cfg(test)]").next().unwrap_or_default();
                let lines: Vec<&str> = said.split("\\\n").map(str::trim_start).collect();
                all.push_str(&lines.join(""));
            }
        }
    }
    all
}

/// What is between the placeholders, if it is long enough to mean something.
fn pieces(line: &str) -> Vec<&str> {
    let parts = line.split('<').flat_map(|part| part.split_once('>').map_or([part, ""], |(_, rest)| ["", rest]));
    let words = parts.flat_map(|part| part.split(": (")).map(str::trim);
    words.filter(|piece| piece.chars().filter(|c| c.is_alphabetic()).count() >= 4).collect()
}

fn speaker(fence: &Fence) -> Option<&str> {
    fence.info.strip_prefix("text ")
}

#[test]
fn quotations_are_in_the_sources() {
    let mut wrong = Vec::new();
    let mut quoted = 0;
    for page in Page::all() {
        for fence in &page.fences {
            let Some(who) = speaker(fence) else { continue };
            let Some((_, folders)) = SPEAKERS.iter().find(|(name, _)| *name == who) else {
                wrong.push(format!("{}:{}: who is {who:?}?", page.path, fence.line));
                continue;
            };
            if folders.is_empty() {
                continue;
            }
            let sources = sources(folders);
            for line in fence.text.lines() {
                quoted += 1;
                // `registering again: ...` and `unable to ...: ...` join the words of two places.
                let joined = |piece: &str| piece.split(": ").all(|part| sources.contains(part));
                for piece in pieces(line).iter().filter(|piece| !sources.contains(**piece) && !joined(piece)) {
                    wrong.push(format!("{}:{}: no {who} says {piece:?}", page.path, fence.line));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(quoted >= 20, "only {quoted} quotations were found");
}

#[test]
fn a_quotation_is_taken_apart_at_its_placeholders() {
    let line = "unable to load NVML: <reason> (nor is it below <directory>: install it)";
    assert_eq!(pieces(line), ["unable to load NVML:", "(nor is it below", ": install it)"]);
}
