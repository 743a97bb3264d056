use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::text_of;

/// Values that are one thing: their parts are Kubernetes', not the chart's.
pub const WHOLE: [&str; 7] =
    ["affinity", "livenessProbe", "readinessProbe", "resources", "startupProbe", "tolerations", "updateStrategy"];
/// A default that is longer is to be looked up.
const LONGEST_DEFAULT: usize = 60;

/// values.yaml.
pub fn default_values() -> Value {
    serde_saphyr::from_str(&text_of("charts/mig-agent/values.yaml")).expect("values.yaml is YAML")
}

/// Each value by its dotted name; those in `whole` are not taken apart.
pub fn flattened(values: &Value, whole: &[&str]) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    flatten(values, "", whole, &mut flat);
    flat
}

fn flatten(value: &Value, path: &str, whole: &[&str], into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() && !whole.contains(&path) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(value, &path, whole, into);
            }
        }
        other => {
            into.insert(path.to_owned(), other.clone());
        }
    }
}

/// The tables of the chart's README, from the comments of values.yaml. Every value must have one.
pub fn tables() -> String {
    let defaults = flattened(&default_values(), &WHOLE);
    let mut tables = String::new();
    let (mut path, mut comment) = (Vec::<String>::new(), String::new());
    for line in text_of("charts/mig-agent/values.yaml").lines() {
        let text = line.trim_start();
        if let Some(section) = text.strip_prefix("# --- ") {
            let section = section.trim_end_matches('-').trim_end();
            let _ = write!(tables, "\n### {section}\n\n| value | default | what |\n|---|---|---|\n");
        } else if let Some(words) = text.strip_prefix("# ") {
            comment = format!("{comment} {words}");
            continue;
        } else if let Some((key, _)) = text.split_once(':').filter(|(key, _)| key.chars().all(char::is_alphanumeric)) {
            path.truncate((line.len() - text.len()) / 2);
            path.push(key.to_owned());
            let path = path.join(".");
            if let Some(default) = defaults.get(&path) {
                assert!(!comment.is_empty(), "values.yaml says nothing of {path}");
                let default = default.to_string();
                let default =
                    if default.len() > LONGEST_DEFAULT { "see values.yaml".to_owned() } else { format!("`{default}`") };
                let _ = writeln!(tables, "| `{path}` | {default} |{comment} |");
            }
        }
        comment.clear();
    }
    tables
}
