//! How long the planner takes, for nodes of one to 64 GPUs.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use mig_model::model::Model;
use mig_model::plan::plan;
use mig_model::{ComputeInstance, Geometry, GpuInstance, InUse, MigUuid, Placement, PlanError, WantedInstance};

const NODES: [usize; 5] = [1, 8, 16, 32, 64];

/// What is there, what of it is in use, and what is wished for.
struct Case {
    name: &'static str,
    there: &'static [&'static str],
    in_use: &'static [u32],
    wish: &'static [&'static str],
}

const CASES: [Case; 5] = [
    Case { name: "empty GPUs, 7 slices each", there: &[], in_use: &[], wish: &["1g.5gb"; 7] },
    Case { name: "all 7 are there already", there: SEVEN, in_use: &[], wish: &["1g.5gb"; 7] },
    Case { name: "7 slices to 3g + 2g + 1g + 1g", there: SEVEN, in_use: &[], wish: MIXED },
    Case { name: "the same around two in use", there: SEVEN, in_use: &[3, 6], wish: MIXED },
    Case { name: "cannot be: two in use are in the way", there: SEVEN, in_use: &[2, 6], wish: &["3g.20gb", "3g.20gb"] },
];
const SEVEN: &[&str] = &["1g.5gb@0", "1g.5gb@1", "1g.5gb@2", "1g.5gb@3", "1g.5gb@4", "1g.5gb@5", "1g.5gb@6"];
const MIXED: &[&str] = &["3g.20gb", "2g.10gb", "1g.5gb", "1g.5gb"];

/// A table: a row for each case, a column for each size of a node; medians.
pub(crate) fn figures(runs: usize) -> anyhow::Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/A100-SXM4-40GB.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("unable to read {}", path.display()))?;
    let geometry = Model::parse(&text)?.geometry.context("an A100 can be cut")?;
    let mut table = format!("{:<40}", "planning a node of A100s, GPUs:");
    for gpus in NODES {
        let _ = write!(table, "{gpus:>9}");
    }
    table.push('\n');
    for case in &CASES {
        let _ = write!(table, "{:<40}", case.name);
        let there = instances(&geometry, case.there)?;
        let mut in_use = InUse::default();
        case.in_use.iter().for_each(|id| in_use.insert(*id, None));
        let wish = wishes(case.wish)?;
        for gpus in NODES {
            let mut times: Vec<u128> = Vec::new();
            for _ in 0..runs {
                let start = Instant::now();
                for _ in 0..gpus {
                    let planned = plan(&geometry, &there, &in_use, &wish);
                    anyhow::ensure!(matches!(planned, Ok(_) | Err(PlanError::InTheWay { .. })), "{planned:?}");
                }
                times.push(start.elapsed().as_nanos());
            }
            times.sort_unstable();
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            let _ = write!(table, "{:>6} us", median.div_ceil(1000));
        }
        table.push('\n');
    }
    Ok(table)
}

fn wishes(texts: &[&str]) -> anyhow::Result<Vec<WantedInstance>> {
    texts.iter().map(|text| Ok(WantedInstance::whole(text.parse()?))).collect()
}

fn instances(geometry: &Geometry, texts: &[&str]) -> anyhow::Result<Vec<GpuInstance>> {
    let instance = |(id, text): (u32, &&str)| {
        let (name, start) = text.split_once('@').context("a placement")?;
        let profile: mig_model::Profile = name.parse()?;
        let start: u32 = start.parse()?;
        let size = geometry.find(&profile).and_then(|known| known.placements.first()).context("a size")?.size;
        let uuid = MigUuid::new(format!("MIG-00000000-0000-0000-0000-{id:012}"))?;
        let compute =
            ComputeInstance { id: 0, profile: profile.clone(), uuid, index: None, placement: None, fault: None };
        let placement = Some(Placement { start, size });
        Ok(GpuInstance { id, profile, placement, compute_instances: vec![compute] })
    };
    (1..).zip(texts).map(instance).collect()
}
