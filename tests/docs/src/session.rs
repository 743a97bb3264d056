//! A terminal in a fresh clone.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::{binaries, fence, repository};

/// What a reader has in front of them: the repository as the folder they are in, our programs in the path. What is exported
/// or changed by one command holds for the next.
#[derive(Debug)]
pub struct Session {
    home: TempDir,
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Both streams, as a terminal mixes them.
    pub text: String,
    /// Its exit code.
    pub code: i32,
}

/// Longer than anything on a page may take.
const DEADLINE: &str = "120";

impl Session {
    /// Without any driver.
    pub fn new() -> Self {
        let home = TempDir::with_prefix("reader").expect("a temporary folder");
        let clone = home.path().join("mig-agent");
        fs::create_dir(&clone).unwrap();
        for entry in repository::root().read_dir().unwrap() {
            let entry = entry.unwrap();
            if !["target", ".git"].iter().any(|other| entry.file_name() == *other) {
                symlink(entry.path(), clone.join(entry.file_name())).unwrap();
            }
        }
        // What `make fake-nvml` leaves.
        let fake = clone.join("target/fake-nvml");
        fs::create_dir_all(&fake).unwrap();
        symlink(binaries::folder().join("libfake_nvml.so"), fake.join("libnvidia-ml.so.1")).unwrap();
        symlink(binaries::folder().join("fake-nvml"), fake.join("fake-nvml")).unwrap();
        fs::create_dir(home.path().join("tmp")).unwrap();
        let session = Self { home };
        let tmp = session.path("tmp");
        session.run(&format!(
            "export PATH={}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME={} TMPDIR={} LC_ALL=C.UTF-8 COLUMNS=100 NO_COLOR=1",
            binaries::folder().display(),
            session.home.path().display(),
            tmp.display(),
        ));
        session
    }

    /// A machine with the GPUs of `tests/scenes/NAME.yaml`, where nothing of the real one is seen.
    pub fn of_scene(name: &str) -> Self {
        let session = Self::new();
        let scene = format!("tests/scenes/{name}.yaml");
        assert!(repository::root().join(&scene).is_file(), "there is no {scene}");
        let mut line =
            format!("export FAKE_NVML_SCENE=$PWD/{scene} NVML_LIBRARY=$PWD/target/fake-nvml/libnvidia-ml.so.1");
        for (variable, file) in [
            ("FAKE_NVML_STATE", "state"),
            ("PROC_ROOT", "proc"),
            ("SYS_ROOT", "sys"),
            ("KUBELET_ROOT", "kubelet"),
            ("MIG_LOCK_FILE", "node.lock"),
        ] {
            line.push_str(&format!(" {variable}={}", session.path(file).display()));
        }
        session.run(&line);
        session
    }

    fn path(&self, file: &str) -> PathBuf {
        self.home.path().join(file)
    }

    /// Runs a line as an interactive shell does.
    pub fn run(&self, line: &str) -> Outcome {
        let (memory, output) = (self.path("environment"), self.path("output"));
        let script = format!(
            "test ! -f {memory} || . {memory}\n{{\n{line}\n}} > {output} 2>&1 < /dev/null\ncode=$?\n{{ declare -px; printf 'cd %q\\n' \"$PWD\"; }} > {memory}\nexit $code\n",
            memory = memory.display(),
            output = output.display(),
        );
        let mut bash = Command::new("timeout");
        bash.args([DEADLINE, "bash", "--norc", "-c", &script]).env_clear().current_dir(self.path("mig-agent"));
        if let Some(path) = std::env::var_os("PATH") {
            bash.env("PATH", path);
        }
        let status = bash.stdin(Stdio::null()).status().expect("bash");
        let text = fs::read_to_string(&output).unwrap_or_default();
        let text = text.replace(&self.home.path().display().to_string(), "/home/you");
        Outcome { text, code: status.code().unwrap_or(-1) }
    }

    /// Runs a page's command. A command may fail only where the page shows how.
    pub fn play(&self, command: &fence::Command) -> Result<String, String> {
        let outcome = self.run(&command.line);
        if outcome.code != 0 && command.output.is_empty() {
            return Err(format!("$ {}\n{}exit code {}", command.line, outcome.text, outcome.code));
        }
        let shown = if command.output.is_empty() { String::new() } else { outcome.text };
        Ok(format!("{}{shown}", command.written))
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}
