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

/// What can be told of a command without running it.
#[test]
fn what_cannot_run_here_names_what_there_is() {
    let makefile = repository::read("Makefile");
    let crates: Vec<String> = repository::files("", "toml")
        .iter()
        .map(|file| repository::read(file))
        .filter_map(|text| Some(text.split_once("[package]\nname = \"")?.1.split('"').next()?.to_owned()))
        .collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in Page::all() {
        for (line, code) in &page.codes {
            let target = code.strip_prefix("make ").and_then(|rest| rest.split(' ').next());
            if target.is_some_and(|target| !makefile.contains(&format!("\n{target}: "))) {
                wrong.push(format!("{}:{line}: there is no {code}", page.path));
            }
        }
        for fence in page.fences.iter().filter(|fence| fence.has_commands()) {
            for command in fence.commands() {
                let said = command.line.split("  #").next().unwrap_or_default();
                let words: Vec<&str> = said.split_whitespace().collect();
                let mut complain = |what: String| wrong.push(format!("{}:{}: {what}", page.path, fence.line));
                seen += 1;
                for pair in words.windows(2) {
                    let is_target = pair[0] == "make" && !pair[1].contains('=');
                    if is_target && !makefile.contains(&format!("\n{}: ", pair[1])) {
                        complain(format!("there is no make {}", pair[1]));
                    }
                    if words[0] == "cargo" && pair[0] == "-p" && !crates.iter().any(|name| name == pair[1]) {
                        complain(format!("there is no crate {}", pair[1]));
                    }
                }
                for word in words {
                    let path = word.split('=').next_back().unwrap_or_default().trim_start_matches("./");
                    let ours = ["charts/", "crates/", "deploy/", "docs/", "models/", "tests/"];
                    let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
                    let exists = repository::root().join(path).exists();
                    // What a command writes is there after it.
                    let is_made = said.contains(&format!("> {path}")) || said.contains(&format!("--file {path}"));
                    if plain && ours.iter().any(|folder| path.starts_with(folder)) && !exists && !is_made {
                        complain(format!("there is no {path}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 50, "only {seen} commands were found");
}
