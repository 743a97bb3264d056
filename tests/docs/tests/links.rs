//! What the pages point to is there.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use docs::page::Page;
use docs::repository;

/// Folders whose files the pages call by their names.
const NAMED: [&str; 7] = ["charts/", "crates/", "deploy/", "docs/", "models/", "proto/", "tests/"];

#[test]
fn relative_links_and_anchors_lead_somewhere() {
    let pages: BTreeMap<String, Page> = Page::all().into_iter().map(|page| (page.path.clone(), page)).collect();
    let mut wrong = Vec::new();
    for page in pages.values() {
        for (line, link) in page.links.iter().filter(|(_, link)| !is_external(link)) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.path.clone() } else { beside(&page.path, file) };
            let there = repository::root().join(&target).exists();
            let known = anchor.is_empty() || pages.get(&target).is_some_and(|page| page.anchors.contains(anchor));
            if !there || !known {
                wrong.push(format!("{}:{line}: {link}", page.path));
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
}

#[test]
fn files_that_are_named_are_there() {
    let mut wrong = Vec::new();
    for page in Page::all() {
        for (line, code) in &page.codes {
            let path = code.trim_end_matches('/');
            let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
            if plain && NAMED.iter().any(|folder| path.starts_with(folder)) && !repository::root().join(path).exists() {
                wrong.push(format!("{}:{line}: {code}", page.path));
            }
        }
    }
    assert!(wrong.is_empty(), "files that are not there:\n{}", wrong.join("\n"));
}

/// Whoever wants to try them: `cargo test -p docs --test links external -- --nocapture`.
#[test]
#[allow(clippy::print_stdout, reason = "the list is what it is for")]
fn external_links_are_listed_and_encrypted() {
    let pages = Page::all();
    let links = pages.iter().flat_map(|page| page.links.iter().map(move |(line, link)| (page, line, link)));
    let mut wrong = Vec::new();
    for (page, line, link) in links.filter(|(_, _, link)| is_external(link)) {
        println!("{}:{line}: {link}", page.path);
        let local = ["http://localhost", "http://127.0.0.1", "mailto:"].iter().any(|start| link.starts_with(start));
        if !link.starts_with("https://") && !local {
            wrong.push(format!("{}:{line}: {link}", page.path));
        }
    }
    assert!(wrong.is_empty(), "links without TLS:\n{}", wrong.join("\n"));
}

#[test]
fn anchors_are_formed_as_github_does() {
    let page = Page::read("docs/migctl.md");
    for anchor in ["migctl", "at-a-glance", "create-and-destroy", "exit-codes"] {
        assert!(page.anchors.contains(anchor), "{anchor} of {:?}", page.anchors);
    }
}

fn is_external(link: &str) -> bool {
    link.contains("://") || link.starts_with("mailto:")
}

/// A path that a page names, from the root.
fn beside(page: &str, link: &str) -> String {
    let mut path = PathBuf::from(page);
    path.pop();
    for component in Path::new(link).components() {
        match component {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path.display().to_string()
}

/// README and SECURITY claim what they claim by the names of tests.
#[test]
fn tests_that_are_named_are_there() {
    let sources: String = ["crates", "tests"]
        .iter()
        .flat_map(|folder| repository::files(folder, "rs"))
        .map(|file| repository::read(&file))
        .collect();
    let is_test = |code: &str| {
        let plain = code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit());
        plain && code.matches('_').count() >= 2 && !code.starts_with("mig_agent_")
    };
    for path in ["README.md", "SECURITY.md"] {
        let page = Page::read(path);
        let named: Vec<&str> = page.codes.iter().map(|(_, code)| code.as_str()).filter(|code| is_test(code)).collect();
        assert!(named.len() >= 8, "{path}: {named:?}");
        for test in named {
            assert!(sources.contains(&format!("fn {test}(")), "{path}: there is no test {test}");
        }
    }
}
