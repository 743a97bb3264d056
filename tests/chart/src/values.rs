use std::collections::BTreeMap;

use serde_json::Value;

use crate::text_of;

/// values.yaml.
pub fn default_values() -> Value {
    serde_saphyr::from_str(&text_of("charts/mig-agent/values.yaml")).expect("values.yaml is YAML")
}

/// Each value by its dotted name. What `is_whole` names is not taken apart.
pub fn flattened(values: &Value, is_whole: &dyn Fn(&str) -> bool) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    flatten(values, "", is_whole, &mut flat);
    flat
}

fn flatten(value: &Value, path: &str, is_whole: &dyn Fn(&str) -> bool, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() && !is_whole(path) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(value, &path, is_whole, into);
            }
        }
        other => {
            into.insert(path.to_owned(), other.clone());
        }
    }
}
