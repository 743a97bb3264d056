use std::sync::mpsc;
use std::time::Duration;

use mig_model::{GpuSurvey, NodeSurvey};
use mig_nvml::{DriverError, Hardware, NodeLock, Roots};

use crate::args::Options;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Ticker;
use crate::selection::{self, Selector};

/// What every verb needs.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) options: Options,
    pub(crate) output: Output,
}

/// The machine's GPUs: the driver to change them by, and what it said of them.
pub(crate) struct Node {
    pub(crate) hardware: Hardware,
    pub(crate) survey: NodeSurvey,
}

/// For verbs that only look, and go on without the driver.
#[derive(Debug, clap::Args)]
pub(crate) struct Patience {
    /// Give up on a driver that has not answered for so long: 30s, or a number of seconds
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: Option<u64> = text.strip_suffix('s').unwrap_or(text).parse().ok();
    let number = number.filter(|number| (1..=86_400).contains(number));
    number.map(Duration::from_secs).ok_or_else(|| "expected a time from 1s to 86400s".to_owned())
}

impl Patience {
    pub(crate) fn exhausted(&self) -> Failure {
        let message = format!("the driver has not answered for {} s", self.timeout.as_secs());
        Failure::failed("DriverHangs", message)
            .hint("see the kernel's log; a hung driver needs a reset of its GPU, or a restart of the node")
    }
}

impl Context {
    /// Lets the driver be asked on a thread of its own, which one that hangs does not give back; nothing then.
    pub(crate) fn patiently<T: Send + 'static>(
        &self,
        timeout: Duration,
        ask: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = mpsc::channel();
        let own = self.clone();
        std::thread::spawn(move || {
            // Nobody may wait for it any more.
            let _ = answer.send(ask(&own));
        });
        answered.recv_timeout(timeout).ok()
    }

    pub(crate) fn new(options: Options) -> Self {
        Self { output: Output::new(&options), options }
    }

    /// Starts NVML and asks for everything.
    pub(crate) fn node(&self) -> Result<Node, Failure> {
        let hardware = self.hardware()?;
        let waiting = Ticker::for_driver(self);
        waiting.begin("it takes its time to say how the GPUs are cut; the kernel's log may know why");
        let survey = hardware.survey()?;
        Ok(Node { hardware, survey })
    }

    /// Starts NVML.
    pub(crate) fn hardware(&self) -> Result<Hardware, DriverError> {
        let roots = Roots {
            driver: self.options.container_driver_root.as_ref().unwrap_or(&self.options.nvidia_driver_root).clone(),
            sys: self.options.sys_root.clone(),
            proc: self.options.proc_root.clone(),
        };
        let waiting = Ticker::for_driver(self);
        waiting.begin("it takes its time to start; the kernel's log may know why");
        Hardware::open(self.options.nvml_library.as_deref(), roots)
    }

    /// The GPUs to look at, with a warning for each that cannot be looked at.
    pub(crate) fn gpus_to_read<'s>(&self, survey: &'s NodeSurvey) -> Result<Vec<&'s GpuSurvey>, Failure> {
        let chosen = selection::to_read(&self.options.gpuid, survey)?;
        self.warn_of_unreadable(survey);
        for GpuSurvey { gpu, .. } in &chosen {
            if let Some(fault) = &gpu.fault {
                self.output.warn(&format!("GPU {}: {}", gpu.index, fault.message));
            }
        }
        Ok(chosen)
    }

    /// A warning for each GPU that the driver does not let us look at, if all of them were meant.
    pub(crate) fn warn_of_unreadable(&self, survey: &NodeSurvey) {
        let named = self.options.gpuid.iter().any(|selector| *selector != Selector::All);
        for gpu in survey.unreadable.iter().filter(|_| !named) {
            self.output.warn(&format!("GPU {}: {}", gpu.index, gpu.fault.message));
        }
    }

    /// The right to change GPUs, to be had before they are looked at. A dry run needs none.
    pub(crate) fn lock(&self, verb: &str) -> Result<Option<NodeLock>, Failure> {
        if self.options.dry_run {
            return Ok(None);
        }
        Ok(Some(NodeLock::acquire(&self.options.lock_file, &format!("migctl {verb}"))?))
    }
}
