//! What Prometheus scrapes, rendered from memory. `docs/metrics.md` lists it, and a test holds the list.

mod node;
mod process;

use std::fmt;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;

use crate::health::Tally;
use crate::known::Known;

/// The format that every Prometheus, and everything else that scrapes, reads.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const PREFIX: &str = "mig_agent";

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub(crate) fn new(
        driver: &mig_nvml::Metrics,
        plugin: &mig_device_plugin::Metrics,
        health: &Tally,
        known: Known,
    ) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process));
        let ours = registry.sub_registry_with_prefix(PREFIX);
        ours.register_collector(Box::new(node::Node(known)));
        plugin.register(ours);
        health.register(ours);
        driver.register(ours);
        Self { registry }
    }

    pub(crate) fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        Ok(plain(&text))
    }
}

/// The library writes OpenMetrics, in which a counter's family is named without the `_total` of its series. Readers of
/// the plain format look for both by one name.
fn plain(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut lines = openmetrics.lines().peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '));
        let kind = lines.peek().and_then(|next| next.strip_prefix("# TYPE ")).and_then(|rest| rest.split_once(' '));
        match (help, kind) {
            (Some((name, words)), Some((again, "counter"))) if name == again => {
                lines.next();
                text.push_str(&format!("# HELP {name}_total {words}\n# TYPE {name}_total counter\n"));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[test]
    fn a_counters_family_has_the_name_of_its_series() {
        let mut registry = Registry::default();
        registry.register("calls", "Calls that counter something", <Counter>::default());
        registry.register("open", "What is open", <Gauge>::default());
        let mut text = String::new();
        encode_registry(&mut text, &registry).unwrap();
        assert_eq!(
            plain(&text),
            "# HELP calls_total Calls that counter something.\n# TYPE calls_total counter\ncalls_total 0\n\
             # HELP open What is open.\n# TYPE open gauge\nopen 0\n"
        );
    }
}
