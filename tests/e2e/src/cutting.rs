//! Cutting the node's GPUs while the cluster uses them: `migctl` on the node itself.

use anyhow::{Context, Result};

use crate::command::{Answer, run};

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
    run(&format!("{} {arguments}", variable("E2E_MIGCTL")?))
}

/// Cuts the node's GPUs as they were when the cluster was started, with the same UUIDs.
///
/// # Errors
/// When nothing says how, or it fails.
pub fn restore() -> Result<()> {
    let answer = run(&variable("E2E_RESTORE_GPUS")?)?;
    anyhow::ensure!(answer.code == 0, "the GPUs could not be restored: {answer:?}");
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}
