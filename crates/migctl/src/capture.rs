//! A GPU as a file in `models/`.

mod model;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use mig_model::{GpuSurvey, MigMode};
use mig_nvml::ModelFacts;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::args::Format;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::{mode, selection};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write it; by default to stdout
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Replace the file if it is there
    #[arg(long, requires = "file")]
    force: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    if context.options.output == Format::Json {
        return Err(Failure::usage("a models/ file is YAML: capture has no JSON"));
    }
    let node = context.node()?;
    let gpu = match selection::to_change(&context.options.gpuid, &node.survey)?.as_slice() {
        [gpu] => *gpu,
        several => {
            let message = format!("one file describes one GPU, not {}: name one by --gpuid", several.len());
            return Err(Failure::new(Exit::Usage, "WhichGpu", message));
        }
    };
    refuse_if_unknown(gpu)?;
    let facts = node.hardware.describe(&gpu.gpu.uuid)?;
    let text = model::text(gpu, &facts, &today())?;
    let Some(path) = &args.file else { return context.output.raw(text.as_bytes()) };
    if path.is_dir() {
        return Err(Failure::file("write", path, &io::ErrorKind::IsADirectory.into()));
    }
    if path.symlink_metadata().is_ok() && !args.force {
        return Err(exists(path));
    }
    if context.options.dry_run {
        context.output.note(&format!("would write {}: {}", path.display(), told(&facts, gpu)));
        return Ok(());
    }
    put(path, text.as_bytes(), args.force).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => Failure::file("write", path, &error),
    })?;
    context.output.note(&format!("wrote {}: {}", path.display(), told(&facts, gpu)));
    Ok(())
}

/// A GPU that could be cut, but does not say how, has no file.
fn refuse_if_unknown(survey: &GpuSurvey) -> Result<(), Failure> {
    let gpu = &survey.gpu;
    if gpu.mig == MigMode::Unsupported || survey.geometry.is_some() {
        return Ok(());
    }
    let message = format!("GPU {}: {}", gpu.index, mode::why_no_geometry(gpu));
    Err(Failure::new(Exit::NotPermitted, "NoProfiles", message))
}

fn exists(path: &Path) -> Failure {
    Failure::failed("FileExists", format!("{} exists", path.display())).hint("replace it: --force")
}

fn told(facts: &ModelFacts, survey: &GpuSurvey) -> String {
    match &survey.geometry {
        Some(geometry) => format!("{}, {} instance types", facts.name, geometry.profiles.len()),
        None => format!("{}, no MIG", facts.name),
    }
}

/// Whoever reads the file sees all of it, or what was there before.
fn put(path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let draft = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&draft)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| rename(&draft, path, replace));
    if written.is_err() {
        // What is half written is of no use; the error that matters is told.
        let _ = fs::remove_file(&draft);
    }
    written
}

fn rename(from: &Path, to: &Path, replace: bool) -> io::Result<()> {
    if replace {
        return fs::rename(from, to);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can; that the file is not there was seen before.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        other => Ok(other?),
    }
}

/// `2026-11-23`, in UTC.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    date(seconds / 86_400)
}

/// The Gregorian date so many days after 1970-01-01, counted in eras of 400 years that begin on a 1st of March.
fn date(days: u64) -> String {
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_780, "2026-11-23"),
            (47_540, "2100-02-28"),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }
}
