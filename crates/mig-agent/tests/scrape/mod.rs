//! A scrape of /metrics, read more strictly than Prometheus does: what is out of place fails the test.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::node::{Agent, DEADLINE};

pub(crate) type Labels = BTreeMap<String, String>;

/// The families in their order.
pub(crate) struct Scrape {
    pub(crate) families: BTreeMap<String, Family>,
    pub(crate) text: String,
}

pub(crate) struct Family {
    pub(crate) kind: String,
    /// By name, which differs from the family's in histograms, and labels.
    pub(crate) samples: BTreeMap<(String, Labels), f64>,
}

impl Scrape {
    pub(crate) fn of(agent: &mut Agent) -> Self {
        let mut stream = TcpStream::connect(agent.http_address()).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        Self::read(body)
    }

    /// Scrapes until it says so.
    pub(crate) fn until(agent: &mut Agent, what: &str, is: impl Fn(&Self) -> bool) -> Self {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let scrape = Self::of(agent);
            if is(&scrape) {
                return scrape;
            }
            assert!(Instant::now() < deadline, "never: {what}\n{}\n{}", scrape.text, agent.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has an end too");
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap();
                assert!(words.ends_with('.') && !words.ends_with(".."), "{line}");
                let next = lines.next().unwrap();
                let kind = next.strip_prefix("# TYPE ").unwrap().strip_prefix(name).unwrap().trim_start();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{next}");
                current = name.to_owned();
                let family = Family { kind: kind.to_owned(), samples: BTreeMap::new() };
                assert!(families.insert(current.clone(), family).is_none(), "{name} comes twice");
                continue;
            }
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("no family for {line}"));
            let (name, labels, value) = sample(line);
            let own = match &*family.kind {
                "histogram" => ["_bucket", "_sum", "_count"].iter().any(|end| name == format!("{current}{end}")),
                "counter" => name == current && name.ends_with("_total"),
                _ => name == current && !name.ends_with("_total"),
            };
            assert!(own, "{line} is none of {current}'s");
            assert!(family.samples.insert((name, labels), value).is_none(), "{line} comes twice");
        }
        for (name, family) in &families {
            assert!(!family.samples.is_empty(), "{name} has no series");
            if family.kind == "histogram" {
                check_histogram(name, family);
            }
        }
        Self { families, text: text.to_owned() }
    }

    /// Of the series that have these labels, the sum; nothing if there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let family = self.families.values().flat_map(|family| &family.samples);
        let fits = |own: &Labels| labels.iter().all(|(k, v)| own.get(*k).is_some_and(|value| value == v));
        family.filter(|((own, has), _)| own == name && fits(has)).map(|(_, value)| *value).reduce(|a, b| a + b)
    }

    /// The label sets of a metric's series whose value is this.
    pub(crate) fn with_value(&self, name: &str, value: f64) -> Vec<&Labels> {
        let samples = self.families.get(name).into_iter().flat_map(|family| &family.samples);
        samples.filter(|(_, own)| **own == value).map(|((_, labels), _)| labels).collect()
    }

    /// Every metric's type and the names of its labels.
    pub(crate) fn shape(&self) -> BTreeMap<String, (String, BTreeSet<String>)> {
        let shape = |family: &Family| {
            let labels = family.samples.keys().flat_map(|(_, labels)| labels.keys().cloned());
            (family.kind.clone(), labels.filter(|name| family.kind != "histogram" || name != "le").collect())
        };
        self.families.iter().map(|(name, family)| (name.clone(), shape(family))).collect()
    }
}

/// `name{label="value",...} 1`
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line:?} is no sample"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label), "{line}");
            let (value, after) = quoted(after);
            assert!(!value.is_empty(), "an empty label is none: {line}");
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}').unwrap_or_else(|| panic!("{line}"));
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A value up to its closing quote, and what follows.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match characters.next().unwrap().1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                other => panic!("\\{other} is no escape: {text}"),
            }),
            c => value.push(c),
        }
    }
    panic!("no end of {text}");
}

/// Buckets that grow, the last of them `+Inf`, which has the count.
fn check_histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for ((_, labels), value) in family.samples.iter().filter(|((own, _), _)| own.ends_with("_bucket")) {
        let mut labels = labels.clone();
        let bound = labels.remove("le").unwrap();
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
        series.entry(labels).or_default().push((bound, *value));
    }
    for (labels, mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name} {labels:?}: {buckets:?}");
        let last = buckets.last().unwrap();
        let count = family.samples[&(format!("{name}_count"), labels.clone())];
        assert_eq!((last.0, last.1), (f64::INFINITY, count), "{name} {labels:?}");
        assert!(family.samples.contains_key(&(format!("{name}_sum"), labels)));
    }
}
