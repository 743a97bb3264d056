//! Tries each statement in a process of its own: this program, started again with the statement's name.

use std::{
    ffi::OsString,
    io::{Write as _, stdout},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use clap::Parser;
use libtest_mimic::{Completion, Failed, Trial};

use crate::{
    bench::{Bench, Outside, restore},
    call::{Stop, Verdict, broken},
    gpu::{Gpu, TEXT},
    nvml::Nvml,
    statements::{Chapter, Statement, Try},
};

/// What a child's exit code says. Rust's own are 0, 1 and 101.
const HELD: u8 = 0;
const BROKEN: u8 = 3;
const SKIPPED: u8 = 4;

/// A driver may hang. Changing the mode of a GPU takes it many seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// States what NVML does, and tries it on a library.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// The library to try.
    #[arg(long, env = "NVML_LIBRARY", value_name = "PATH")]
    pub library: Option<PathBuf>,
    /// The GPU to try it on.
    #[arg(long, env = "CONTRACT_GPU", value_name = "INDEX", default_value_t = 0)]
    pub gpu: u32,
    /// Also try what changes the GPU: its MIG mode, its instances. It is given back as it was found.
    #[arg(long, env = "CONTRACT_WRITABLE", value_parser = clap::builder::FalseyValueParser::new())]
    pub writable: bool,
    /// Try this one statement, in this process.
    #[arg(long, hide = true)]
    pub only: Option<String>,
    /// Remove all instances and set this mode.
    #[arg(long, hide = true)]
    pub restore: Option<u32>,
    /// Print what is tried.
    #[arg(long, hide = true)]
    pub describe: bool,
    /// Print the UUIDs of the MIG devices.
    #[arg(long, hide = true)]
    pub uuids: bool,
    /// As every Rust test takes them.
    #[command(flatten)]
    pub tests: libtest_mimic::Arguments,
}

/// What makes a machine ready for one statement: its environment, and what must live as long as the statement runs.
pub type Prepare = dyn Fn() -> Result<(Vec<(&'static str, OsString)>, Box<dyn Send>), String> + Send + Sync;

/// A GPU to try statements on.
#[derive(Clone)]
pub struct Target {
    /// The library.
    pub library: PathBuf,
    /// The GPU.
    pub gpu: u32,
    /// Whether it may be changed.
    pub writable: bool,
    /// Run before each statement.
    pub prepare: Arc<Prepare>,
}

impl Target {
    /// A GPU that is there.
    pub fn real(library: PathBuf, gpu: u32, writable: bool) -> Self {
        Self { library, gpu, writable, prepare: Arc::new(|| Ok((Vec::new(), Box::new(())))) }
    }

    fn command(&self) -> Result<Command, String> {
        let program = std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
        let mut command = Command::new(program);
        command.env_remove("CONTRACT_WRITABLE").arg("--library").arg(&self.library);
        command.arg("--gpu").arg(self.gpu.to_string());
        if self.writable {
            command.arg("--writable");
        }
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Prints what is tried, or why nothing can be: driver, library, GPU.
    pub fn describe(&self) -> bool {
        let shown = self.command().and_then(|mut command| {
            command.arg("--describe").status().map_err(|error| format!("cannot start myself: {error}"))
        });
        match shown {
            Ok(status) => status.success(),
            Err(why) => {
                say(&why);
                false
            }
        }
    }

    /// One trial for one statement.
    pub fn trial(&self, chapter: &'static Chapter, statement: &'static Statement, held: fn(&str)) -> Trial {
        let name = format!("{}::{}", chapter.name, statement.name);
        let target = self.clone();
        Trial::ignorable_test(name.clone(), move || {
            let completion = target.attempt(&name, statement).map_err(Failed::from)?;
            if matches!(completion, Completion::Completed) {
                held(&name);
            }
            Ok(completion)
        })
    }

    fn attempt(&self, name: &str, statement: &Statement) -> Result<Completion, String> {
        let (environment, _kept) = (self.prepare)()?;
        let changes = statement.attempt.changes();
        let run = |arguments: &[&str]| {
            let mut command = self.command()?;
            command.envs(environment.iter().map(|(name, value)| (name, value))).args(arguments);
            if changes {
                // Ctrl-C ends the suite, but not a change half-way: the child goes on, and cleans up.
                command.process_group(0);
            }
            Outcome::of(command)
        };
        let outcome = run(&["--only", name])?;
        let found = outcome.said.lines().find_map(|line| line.strip_prefix(FOUND));
        let said: Vec<&str> = outcome.said.lines().filter(|line| !line.starts_with(FOUND)).collect();
        match outcome.code {
            Some(HELD) => Ok(Completion::Completed),
            Some(SKIPPED) => Ok(Completion::ignored_with(said.join("; "))),
            Some(BROKEN) => Err(said.join("\n")),
            _ => {
                let mut why = format!("{}\n{}", outcome.end, said.join("\n"));
                if let Some(mode) = found {
                    let restored = run(&["--restore", mode])?;
                    why = format!("{why}\nthen the GPU was cleaned up: {} {}", restored.end, restored.said);
                }
                Err(why)
            }
        }
    }
}

/// How a child ended.
struct Outcome {
    code: Option<u8>,
    end: String,
    said: String,
}

impl Outcome {
    fn of(mut command: Command) -> Result<Self, String> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start myself: {error}"))?;
        let (sender, ended) = mpsc::channel();
        let readers = [read(child.stdout.take(), sender.clone()), read(child.stderr.take(), sender)];
        // Both have ended when the channel has no senders.
        let late = ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            let _ = child.kill();
        }
        let end = end_of(&mut child, late)?;
        let said = readers.map(|reader| reader.join().unwrap_or_default()).concat();
        Ok(Self { code: end.0, end: end.1, said })
    }
}

fn read(pipe: Option<impl std::io::Read + Send + 'static>, ended: mpsc::Sender<()>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        drop(ended);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn end_of(child: &mut Child, late: bool) -> Result<(Option<u8>, String), String> {
    let status = child.wait().map_err(|error| format!("cannot wait for myself: {error}"))?;
    if late {
        return Ok((None, format!("it did not come back within {} s", PATIENCE.as_secs())));
    }
    Ok((status.code().and_then(|code| u8::try_from(code).ok()), format!("{status}")))
}

/// How a child says what mode it found.
const FOUND: &str = "found MIG mode ";

/// What a child does, if this process is one.
pub fn child(options: &Options, outside: Option<&'static Outside>) -> Option<ExitCode> {
    let library = options.library.as_deref();
    let open = || match library {
        Some(path) => Nvml::load(path).map_err(Stop::Broken),
        None => broken("no library: give --library PATH"),
    };
    let verdict = if let Some(name) = &options.only {
        open().and_then(|nvml| attempt(nvml, options, name, outside))
    } else if let Some(mode) = options.restore {
        open().and_then(|nvml| Gpu::open(nvml, options.gpu)).and_then(|gpu| restore(&gpu, mode))
    } else if options.describe {
        open().and_then(|nvml| Gpu::open(nvml, options.gpu)).and_then(|gpu| describe(&gpu))
    } else if options.uuids {
        let gpu = open().and_then(|nvml| Gpu::open(nvml, options.gpu));
        gpu.and_then(|gpu| gpu.slice_uuids()).map(|uuids| uuids.iter().for_each(|uuid| say(uuid)))
    } else {
        return None;
    };
    let (code, why) = match verdict {
        Ok(()) => (HELD, String::new()),
        Err(Stop::Broken(why)) => (BROKEN, why),
        Err(Stop::Skipped(why)) => (SKIPPED, why),
    };
    if !why.is_empty() {
        say(&why);
    }
    Some(ExitCode::from(code))
}

fn attempt(nvml: Nvml, options: &Options, name: &str, outside: Option<&'static Outside>) -> Verdict {
    let Some((chapter, statement)) = crate::statements::find(name) else {
        return broken(format!("there is no statement {name}"));
    };
    if let Try::Library(run) = statement.attempt {
        return run(&nvml);
    }
    let gpu = Gpu::open(nvml, options.gpu)?;
    (chapter.needs)(&gpu)?;
    let (run, switch_on) = match statement.attempt {
        Try::Library(_) => return Ok(()),
        Try::Gpu(run) => return run(&gpu),
        Try::Mode(run) => (run, false),
        Try::Life(run) => (run, true),
    };
    let bench = Bench::take(gpu, options.writable, outside)?;
    say(&format!("{FOUND}{}", bench.found()));
    let verdict = if switch_on { bench.switch_on().and_then(|()| run(&bench)) } else { run(&bench) };
    match (verdict, bench.give_back()) {
        (Err(Stop::Broken(why)), Err(Stop::Broken(also))) => broken(format!("{why}\nand afterwards: {also}")),
        (verdict, given_back) => verdict.and(given_back),
    }
}

/// The UUIDs of the MIG devices, as another process sees them.
pub fn uuids_elsewhere() -> Verdict<Vec<String>> {
    let own = std::env::current_exe().map_err(|error| Stop::Broken(format!("this program's own path: {error}")))?;
    let arguments = std::env::args_os().skip(1).take_while(|argument| argument != "--only");
    let mut command = Command::new(own);
    command.args(arguments).arg("--uuids").stdin(Stdio::null());
    let outcome = Outcome::of(command).map_err(Stop::Broken)?;
    if outcome.code == Some(HELD) {
        Ok(outcome.said.lines().map(str::to_owned).collect())
    } else {
        broken(format!("another process: {} {}", outcome.end, outcome.said))
    }
}

fn describe(gpu: &Gpu) -> Verdict {
    let driver = gpu.nvml.driver_version(TEXT).value()?;
    let nvml = gpu.nvml.nvml_version(TEXT).value()?;
    let name = gpu.nvml.name(gpu.device, TEXT).value()?;
    let mode = match gpu.mode()? {
        None => "no MIG".to_owned(),
        Some((current, pending)) => format!("MIG mode {current}, pending {pending}"),
    };
    say(&format!("driver {driver}, NVML {nvml}, GPU {}: {name}, {mode}", gpu.index));
    Ok(())
}

/// Prints a line. Nobody may be listening any more; that is no reason to panic half-way through a change.
pub fn say(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}
