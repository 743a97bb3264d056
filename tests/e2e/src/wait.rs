//! Waiting for what the cluster is to become.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What one look at the cluster showed.
pub(crate) enum Look<T> {
    /// What was waited for.
    Found(T),
    /// Something else, in words: the last one is in the error when the time is up.
    Instead(String),
}

/// Looks until it is found. `what` completes the sentence "gave up waiting for ...". An error of a look ends the wait: return
/// `Look::Instead` for one that may pass.
pub(crate) async fn wait_for<T>(what: &str, within: Duration, look: impl AsyncFn() -> Result<Look<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look().await? {
            Look::Found(found) => return Ok(found),
            Look::Instead(seen) if Instant::now() >= deadline => {
                bail!("gave up waiting for {what} after {} s: {seen}", within.as_secs())
            }
            Look::Instead(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
