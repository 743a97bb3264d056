//! Programs that the suite runs: helm and kubectl on the cluster, others on its node.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

/// Runs a line of shell, as a person would type it in the repository's root.
///
/// # Errors
/// When there is no shell.
pub fn run(line: &str) -> Result<Answer> {
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .with_context(|| format!("failed to run '{line}'"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Answer { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) })
}

/// The same, of one that has to succeed; what it printed.
///
/// # Errors
/// When it does not.
pub fn succeed(line: &str) -> Result<String> {
    let answer = run(line)?;
    ensure!(answer.code == 0, "'{line}' failed: {answer:?}");
    Ok(answer.out)
}

/// Whether the suite can look at the cluster's node.
#[must_use]
pub fn on_node() -> Option<String> {
    std::env::var("E2E_ON_NODE").ok()
}

/// Runs a script for `sh` on the node, as root; what it printed.
///
/// # Errors
/// When nothing says how, or it fails.
pub fn on_the_node(script: &str) -> Result<String> {
    let begin = on_node().context("E2E_ON_NODE is not set")?;
    succeed(&format!("{begin} sh -c '{}'", script.replace('\'', "'\\''")))
}
