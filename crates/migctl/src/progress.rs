//! What is being done, for those who wait longer than a second for it.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::output::Output;

/// Whoever waits longer wants to know for what.
const PATIENCE: Duration = Duration::from_secs(1);

/// Silent at first, then a line for each step. Ends when dropped.
pub(crate) struct Ticker {
    steps: Option<Sender<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(context: &Context, gpu: u32) -> Self {
        let (steps, heard) = mpsc::channel::<String>();
        let output = context.output.clone();
        let thread = std::thread::spawn(move || watch(&output, gpu, &heard));
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

fn watch(output: &Output, gpu: u32, heard: &mpsc::Receiver<String>) {
    let start = Instant::now();
    let mut current: Option<String> = None;
    loop {
        let left = PATIENCE.saturating_sub(start.elapsed());
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
        if start.elapsed() >= PATIENCE
            && let Some(step) = current.take()
        {
            output.note(&format!("GPU {gpu}: {step}"));
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
