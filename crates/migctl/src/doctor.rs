//! What commonly goes wrong, looked for; and for each what to do. Nothing is changed, and nothing but the files has to
//! work.

mod driver;
mod gpus;
mod host;
mod kubelet;
mod nodes;
mod permissions;

use std::fs;
use std::path::{Path, PathBuf};

use mig_model::{GpuSurvey, NodeSurvey};
use serde::Serialize;

use crate::context::{Context, Patience};
use crate::failure::Failure;
use crate::paper::{Ink, Paper};
use crate::selection;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the host's /dev, /etc and /usr are: in a container, where they are mounted
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    #[command(flatten)]
    patience: Patience,
}

#[derive(Serialize)]
struct Answer {
    problems: usize,
    warnings: usize,
    findings: Vec<Finding>,
}

/// What came of one check, or of one of its parts.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    message: String,
    /// What to do, a line each.
    advice: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Ok,
    Warning,
    Problem,
    /// There is nothing to check here, or no way to.
    Skipped,
}

/// Where to look.
struct Places<'c> {
    context: &'c Context,
    root: &'c Path,
}

/// What the driver said, if it said anything.
struct Told<'s> {
    survey: &'s NodeSurvey,
    /// Those that were asked for.
    gpus: Vec<&'s GpuSurvey>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let places = Places { context, root: &args.root };
    let mut findings = Vec::new();
    let survey = match context.patiently(args.patience.timeout, driver::start) {
        Some((survey, finding)) => {
            findings.push(finding);
            survey
        }
        None => {
            findings.push(driver::hangs(&args.patience));
            None
        }
    };
    let told = match &survey {
        Some(survey) => Some(Told { survey, gpus: selection::to_read(&context.options.gpuid, survey)? }),
        None => None,
    };
    findings.push(driver::kernel_module(&places, told.as_ref()));
    findings.push(driver::age(told.as_ref()));
    findings.extend(gpus::health(told.as_ref()));
    findings.extend(gpus::mode(&places, told.as_ref()));
    findings.extend(gpus::instances(told.as_ref()));
    findings.push(permissions::check(&places, told.as_ref()));
    findings.push(nodes::devices(&places, told.as_ref()));
    findings.push(nodes::capabilities(&places, told.as_ref()));
    findings.extend(kubelet::check(&places));
    findings.extend(host::other_tools(&places));
    findings.push(host::lock(&places));
    findings.push(host::container_runtime(&places));
    let count = |status: Status| findings.iter().filter(|finding| finding.status == status).count();
    let answer = Answer { problems: count(Status::Problem), warnings: count(Status::Warning), findings };
    let paper = Paper::new(context, false);
    context.output.drawing(&answer, |answer| text(&paper, answer))?;
    match answer.problems {
        0 => Ok(()),
        1 => Err(Failure::failed("Problems", "1 problem was found")),
        several => Err(Failure::failed("Problems", format!("{several} problems were found"))),
    }
}

fn text(paper: &Paper, answer: &Answer) -> String {
    let width = answer.findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let mut text = String::new();
    for Finding { check, status, message, advice } in &answer.findings {
        let (word, ink) = match status {
            Status::Ok => ("ok", Ink::Good),
            Status::Warning => ("warning", Ink::Warning),
            Status::Problem => ("problem", Ink::Problem),
            Status::Skipped => ("skipped", Ink::Faint),
        };
        let first = format!("{word:<7}  {check:<width$}  ");
        let line = paper.wrapped(&first, message);
        let rest = line.strip_prefix(word).unwrap_or(&line);
        text.push_str(&paper.ink(ink, word));
        text.push_str(rest);
        for advice in advice {
            text.push_str(&paper.wrapped("         -> ", advice));
        }
    }
    text
}

impl Finding {
    fn new(check: &'static str, status: Status, message: impl Into<String>) -> Self {
        Self { check, status, message: message.into(), advice: Vec::new() }
    }

    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Status::Ok, message)
    }

    fn warning(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Status::Warning, message)
    }

    fn problem(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Status::Problem, message)
    }

    fn skipped(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Status::Skipped, message)
    }

    /// For a check that cannot be made without the driver.
    fn needs_driver(check: &'static str) -> Self {
        Self::skipped(check, "NVML does not start")
    }

    #[must_use]
    fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }
}

impl Places<'_> {
    /// A file of the host's: `etc/...`, `dev/...`.
    fn host(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn proc(&self, path: &str) -> PathBuf {
        self.context.options.proc_root.join(path)
    }

    /// Every process's number and name; of the name, the kernel keeps 15 characters.
    fn processes(&self) -> Vec<(u32, String)> {
        let Ok(entries) = fs::read_dir(&self.context.options.proc_root) else { return Vec::new() };
        let process = |entry: fs::DirEntry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read(entry.path().join("comm")).ok()?;
            Some((pid, String::from_utf8_lossy(&name).trim_end().to_owned()))
        };
        let mut processes: Vec<(u32, String)> = entries.flatten().filter_map(process).collect();
        processes.sort();
        processes
    }
}

/// The first few, and how many more there are.
fn listed(names: &[String]) -> String {
    const LISTED: usize = 3;
    let shown = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
