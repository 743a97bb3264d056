use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::repository;

/// A helm program, with folders of its own: what the user has added to theirs is not seen.
#[derive(Debug, Clone)]
pub struct Helm {
    program: PathBuf,
    /// `v3` or `v4`.
    pub major: String,
}

/// Why helm rendered nothing: its words, without what differs from version to version around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub String);

/// $HELM if that is set, else one helm 3 and one helm 4, built on first use.
pub fn helms() -> &'static [Helm] {
    static HELMS: OnceLock<Vec<Helm>> = OnceLock::new();
    HELMS.get_or_init(|| match std::env::var_os("HELM") {
        Some(program) => vec![Helm::at(PathBuf::from(program))],
        None => ["v3", "v4"].map(built).to_vec(),
    })
}

fn built(major: &str) -> Helm {
    let script = repository("tests/chart/helm/build");
    let output = Command::new(&script).arg(major).output().expect("tests/chart/helm/build starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Helm::at(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

impl Helm {
    fn at(program: PathBuf) -> Self {
        let output = Command::new(&program).args(["version", "--short"]).output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let major = String::from_utf8_lossy(&output.stdout).chars().take(2).collect();
        Self { program, major }
    }

    /// Runs it in the repository's root. $KUBECONFIG says which cluster it may ask; without, none.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let home = tempfile::tempdir().expect("a folder for helm's files");
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(repository(""));
        for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(folder, home.path());
        }
        if std::env::var_os("KUBECONFIG").is_none() {
            command.env("KUBECONFIG", home.path().join("none"));
        }
        command.output().expect("helm starts")
    }

    /// `helm template mig-agent charts/mig-agent --namespace mig-agent ...`, or why not.
    pub fn template(&self, arguments: &[&str]) -> Result<String, Refusal> {
        self.template_of("mig-agent", arguments)
    }

    /// The same of another chart, whose release and namespace have its name.
    pub fn template_of(&self, chart: &str, arguments: &[&str]) -> Result<String, Refusal> {
        let folder = format!("charts/{chart}");
        let mut all = vec!["template", chart, &folder, "--namespace", chart];
        all.extend(arguments);
        let output = self.run(&all);
        if output.status.success() {
            // Between documents helm 3 and helm 4 differ in empty lines, and nothing else here has any.
            let text = String::from_utf8_lossy(&output.stdout);
            return Ok(text.lines().filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect());
        }
        Err(Refusal::of(&output))
    }
}

impl Refusal {
    /// From what helm wrote to stderr.
    pub fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stderr);
        let kept = text.lines().filter(|line| {
            let line = line.trim_start();
            // Ours begins below; where in which template it was said is of no use to the reader of a snapshot.
            !(line.is_empty()
                || line.contains("execution error at")
                || line.starts_with("Use --debug")
                || line.starts_with("level=")
                || line.starts_with("coalesce.go"))
        });
        Self(kept.map(|line| format!("{}\n", line.trim_end())).collect())
    }
}
