//! What the tests share: the built library, a machine in a temporary directory, and clients of it.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is the test's")]

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
};

use tempfile::TempDir;

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn scene(name: &str) -> PathBuf {
    repository().join("tests/scenes").join(name).with_extension("yaml")
}

/// Cargo puts it beside the tests, not beside the command.
pub(crate) fn library() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().join("libfake_nvml.so")
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fake-nvml"));
    command.env_remove("FAKE_NVML_SCENE").env_remove("FAKE_NVML_STATE");
    command
}

/// Runs `fake-nvml` without a machine.
pub(crate) fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Output {
    command().args(arguments).output().unwrap()
}

pub(crate) struct Machine {
    folder: TempDir,
    scene: Option<PathBuf>,
}

impl Machine {
    pub(crate) fn of(name: &str) -> Self {
        Self { folder: TempDir::new().unwrap(), scene: Some(scene(name)) }
    }

    /// One whose scene is this text.
    pub(crate) fn described(text: &str) -> Self {
        let mut machine = Self { folder: TempDir::new().unwrap(), scene: None };
        let scene = machine.path("scene.yaml");
        std::fs::write(&scene, text).unwrap();
        machine.scene = Some(scene);
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("FAKE_NVML_STATE", self.path("state"));
        if let Some(scene) = &self.scene {
            command.env("FAKE_NVML_SCENE", scene);
        }
        command
    }

    pub(crate) fn control(&self) -> Command {
        let mut command = command();
        self.prepare(&mut command);
        command
    }

    /// Runs `fake-nvml` on this machine; it has to work.
    pub(crate) fn tell<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let output = self.control().args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        let mut command = Client::command();
        self.prepare(&mut command);
        Client::start(command)
    }
}

pub(crate) struct Client {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    pub(crate) fn command() -> Command {
        Self::command_of(&library())
    }

    /// One that loads this library, and is told of no machine.
    pub(crate) fn command_of(library: &Path) -> Command {
        let tests = std::env::current_exe().unwrap();
        let mut command = Command::new(tests.parent().unwrap().join("../examples/probe"));
        command.arg(library).env_remove("FAKE_NVML_SCENE").env_remove("FAKE_NVML_STATE");
        command
    }

    pub(crate) fn start(mut command: Command) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    pub(crate) fn ask(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    pub(crate) fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Calls a function; the answer is its code and what it filled.
    pub(crate) fn call(&mut self, line: &str) -> String {
        self.ask(line);
        self.answer()
    }

    /// Several calls and what each has to answer.
    #[track_caller]
    pub(crate) fn expect(&mut self, cases: &[(&str, &str)]) {
        for (line, answer) in cases {
            assert_eq!(self.call(line), *answer, "{line}");
        }
    }

    /// A call whose answer has to be SUCCESS and a text, which it gives.
    #[track_caller]
    pub(crate) fn text(&mut self, line: &str) -> String {
        let answer = self.call(line);
        answer.strip_prefix("0 ").unwrap_or_else(|| panic!("{line}: {answer}")).to_owned()
    }

    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
