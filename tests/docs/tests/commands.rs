//! What the pages tell people to type does what they say. `DOCS=overwrite` writes the shown output anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

use docs::fence::{Fence, NEEDS};
use docs::page::Page;
use docs::repository;
use docs::session::Session;

/// Of which crates/migctl/tests/documented.rs runs the commands.
const ELSEWHERE: &str = "docs/migctl.md";

/// Info strings that promise nothing to run.
const PLAIN: [&str; 11] = ["text", "yaml", "json", "rust", "toml", "c", "go", "python", "diff", "promql", "dockerfile"];

#[test]
fn what_can_run_here_runs_and_prints_what_is_shown() {
    let overwrite = std::env::var_os("DOCS").is_some_and(|value| value == "overwrite");
    let mut wrong = Vec::new();
    for page in Page::all().iter().filter(|page| page.path != ELSEWHERE) {
        let mut session = None;
        for fence in &page.fences {
            if let Some(scene) = &fence.scene {
                session = Some(Session::of_scene(scene));
            }
            if !fence.has_commands() || !fence.needs().is_empty() {
                continue;
            }
            let session = session.get_or_insert_with(Session::new);
            let played: Result<String, String> = fence.commands().iter().map(|command| session.play(command)).collect();
            match played {
                Ok(seen) if overwrite && !fence.text.contains("\n...\n") => write_anew(page, fence, &seen),
                Ok(seen) => {
                    let assert = snapbox::Assert::new();
                    let written = snapbox::Data::text(&fence.text);
                    if let Err(error) = assert.try_eq(Some(&"the page"), seen.into(), written) {
                        wrong.push(format!("{}:{}\n{error}", page.path, fence.line));
                    }
                }
                Err(error) => wrong.push(format!("{}:{}\n{error}", page.path, fence.line)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn write_anew(page: &Page, fence: &Fence, seen: &str) {
    let text = repository::read(&page.path);
    let all = text.replacen(&fence.text, seen, 1);
    std::fs::write(repository::root().join(&page.path), all).unwrap();
}

#[test]
fn every_fence_says_what_it_is() {
    let mut wrong = Vec::new();
    for page in Page::all() {
        for fence in &page.fences {
            let mut words = fence.info.split(' ');
            let kind = words.next().unwrap_or_default();
            let is_known = kind == "console" && words.all(|word| NEEDS.contains(&word)) || PLAIN.contains(&kind);
            if !is_known {
                wrong.push(format!("{}:{}: {:?}", page.path, fence.line, fence.info));
            }
            if fence.has_commands() && fence.commands().iter().any(|command| command.line.is_empty()) {
                wrong.push(format!("{}:{}: a command begins with \"$ \"", page.path, fence.line));
            }
        }
    }
    assert!(wrong.is_empty(), "fences that no reader and no test can judge:\n{}", wrong.join("\n"));
}

#[test]
fn a_shell_remembers_and_fails_as_a_shell_does() {
    let session = Session::new();
    session.run("export A=1; cd docs");
    assert_eq!(session.run("echo $A $(basename $PWD)").text, "1 docs\n");
    assert_eq!(session.run("false").code, 1);
    let fence = Fence { text: "$ echo a \\\n  b\n$ cat <<END\n> c\n> END\nc\n".to_owned(), ..Fence::default() };
    let seen: Vec<String> = fence.commands().iter().map(|command| session.play(command).unwrap()).collect();
    assert_eq!(seen, ["$ echo a \\\n  b\n", "$ cat <<END\n> c\n> END\nc\n"]);
    let fails = Fence { text: "$ false\n".to_owned(), ..Fence::default() };
    assert!(session.play(&fails.commands()[0]).is_err());
}
