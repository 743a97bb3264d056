//! Cutting the node's GPUs while the cluster uses them: `migctl` on the node itself.

use std::process::Command;

use anyhow::{Context, Result};

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

/// Whether this cluster's node can be cut from here.
#[must_use]
pub fn can_cut() -> bool {
    std::env::var_os("E2E_MIGCTL").is_some() && std::env::var_os("E2E_RESTORE_GPUS").is_some()
}

/// Runs `migctl` on the node.
///
/// # Errors
/// When nothing says how.
pub fn migctl(arguments: &str) -> Result<Answer> {
    shell("E2E_MIGCTL", arguments)
}

/// Cuts the node's GPUs as they were when the cluster was started, with the same UUIDs.
///
/// # Errors
/// When nothing says how, or it fails.
pub fn restore() -> Result<()> {
    let answer = shell("E2E_RESTORE_GPUS", "")?;
    anyhow::ensure!(answer.code == 0, "the GPUs could not be restored: {answer:?}");
    Ok(())
}

fn shell(variable: &str, arguments: &str) -> Result<Answer> {
    let command = std::env::var(variable).with_context(|| format!("{variable} is not set"))?;
    let output = Command::new("sh")
        .args(["-c", &format!("{command} {arguments}")])
        .output()
        .with_context(|| format!("failed to run '{command} {arguments}'"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Answer { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) })
}
