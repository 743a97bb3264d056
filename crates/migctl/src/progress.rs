//! What is being done, for those who wait longer than a second for it.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::output::Output;

/// Whoever waits longer for a step wants to know for what.
const PATIENCE: Duration = Duration::from_secs(1);
/// A driver that nobody used until now may take this long to start.
const DRIVER_PATIENCE: Duration = Duration::from_secs(3);

/// Silent at first, then a line for each step. Ends when dropped.
pub(crate) struct Ticker {
    steps: Option<Sender<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(context: &Context, gpu: u32) -> Self {
        Self::after(PATIENCE, context, format!("GPU {gpu}"))
    }

    /// For the driver as a whole: a call that hangs cannot be given up, but it can be told what hangs.
    pub(crate) fn for_driver(context: &Context) -> Self {
        Self::after(DRIVER_PATIENCE, context, "driver".to_owned())
    }

    fn after(patience: Duration, context: &Context, what: String) -> Self {
        let (steps, heard) = mpsc::channel::<String>();
        let output = context.output.clone();
        let thread = std::thread::spawn(move || watch(&output, patience, &what, &heard));
        Self { steps: Some(steps), thread: Some(thread) }
    }

    /// This is begun now.
    pub(crate) fn begin(&self, step: &str) {
        if let Some(steps) = &self.steps {
            // Without a listener there is nobody to tell.
            let _ = steps.send(step.to_owned());
        }
    }
}

fn watch(output: &Output, patience: Duration, what: &str, heard: &mpsc::Receiver<String>) {
    let start = Instant::now();
    let mut current: Option<String> = None;
    loop {
        let left = patience.saturating_sub(start.elapsed());
        let step = if left.is_zero() {
            heard.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            heard.recv_timeout(left)
        };
        match step {
            Ok(step) => current = Some(step),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if start.elapsed() >= patience
            && let Some(step) = current.take()
        {
            output.note(&format!("{what}: {step}"));
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.steps = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to say on its end.
            let _ = thread.join();
        }
    }
}
