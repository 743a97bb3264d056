//! The API server that `tests/chart/apiserver` starts.

use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::repository;

/// All of it, for one test at a time: what one installs, another's rendering would find.
#[derive(Debug)]
pub struct Cluster {
    _alone: MutexGuard<'static, ()>,
    namespaces: Vec<String>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Cluster {
    /// With these namespaces, which are emptied of what tests install when it is dropped.
    pub fn with(namespaces: &[&str]) -> Self {
        assert!(
            std::env::var_os("CHART_CLUSTER").is_some(),
            "this needs an API server: run tests/chart/apiserver cargo test -p chart, or make chart"
        );
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = Self { _alone: alone, namespaces: namespaces.iter().map(|&name| name.to_owned()).collect() };
        for name in namespaces {
            // It may be there from an earlier test.
            drop(kubectl(&["create", "namespace", name]));
        }
        cluster
    }

    /// What kubectl prints; it must succeed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = kubectl(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {error}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Why kubectl fails; it must.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = kubectl(arguments);
        assert!(!output.status.success(), "kubectl {} succeeds", arguments.join(" "));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// A manifest that stands in tests/chart/cluster/.
    pub fn create(&self, name: &str) {
        let file = repository(&format!("tests/chart/cluster/{name}.yaml"));
        self.kubectl(&["apply", "--server-side", "-f", &file.to_string_lossy()]);
    }

    /// `namespace kind/name` of everything that an installation may consist of.
    pub fn objects(&self) -> Vec<String> {
        let kinds = "daemonsets,pods,services,serviceaccounts,secrets,configmaps,roles,rolebindings,\
                     clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings";
        let template = r#"{range .items[*]}{.metadata.namespace}{" "}{.kind}/{.metadata.name}{"\n"}{end}"#;
        let text = self.kubectl(&["get", kinds, "--all-namespaces", "--output", &format!("jsonpath={template}")]);
        let ours = text.lines().filter(|line| !line.contains("/system:") && !line.starts_with("kube-"));
        let mut objects: Vec<String> = ours.map(|line| line.trim().to_owned()).collect();
        objects.sort();
        objects
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for name in &self.namespaces {
            let kinds = "daemonsets,pods,services,serviceaccounts,secrets,roles,rolebindings";
            drop(kubectl(&["--namespace", name, "delete", kinds, "--all", "--wait=false", "--grace-period=0"]));
        }
        let left = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings";
        drop(kubectl(&["delete", left, "--selector", "app.kubernetes.io/managed-by=Helm"]));
    }
}

fn kubectl(arguments: &[&str]) -> Output {
    Command::new("kubectl").args(arguments).current_dir(repository("")).output().expect("kubectl starts")
}
