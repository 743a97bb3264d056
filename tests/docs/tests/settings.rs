//! Every setting is documented, and what is documented is a setting.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

use std::collections::BTreeMap;

use docs::binaries::flags;
use docs::page::{Cell, Page};

#[test]
fn the_agents_flags_are_in_the_table_with_their_defaults() {
    let help = flags("mig-agent");
    assert!(help.len() >= 13, "{help:?}");
    let page = Page::read("docs/settings.md");
    let code = |cell: &Cell| cell.codes.first().cloned().unwrap_or_default();
    let table: BTreeMap<String, String> =
        page.table("Flags").rows.iter().map(|row| (code(&row[0]), code(&row[1]))).collect();
    assert_eq!(help, table, "left: mig-agent --help; right: docs/settings.md");
}

#[test]
fn migctls_options_are_in_its_page() {
    let page = Page::read("docs/migctl.md");
    for flag in flags("migctl").keys() {
        let told = page.codes.iter().any(|(_, code)| code.starts_with(flag.as_str()))
            || page.fences.iter().any(|fence| fence.text.contains(flag.as_str()));
        assert!(told, "docs/migctl.md says nothing of {flag}");
    }
}

#[test]
fn http_paths_are_those_that_are_served() {
    let source = docs::repository::read("crates/mig-agent/src/http.rs");
    let served: Vec<&str> =
        source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap_or_default()).collect();
    assert!(served.contains(&"/healthz"), "{served:?}");
    let page = Page::read("docs/settings.md");
    let told: Vec<&str> = page.table("HTTP").rows.iter().map(|row| row[0].codes[0].as_str()).collect();
    for path in &served {
        assert!(told.contains(path), "docs/settings.md says nothing of {path}");
    }
    for path in &told {
        assert!(served.contains(path), "docs/settings.md speaks of {path}, which nobody serves");
    }
}
