//! The lock that lets one process at a time change GPUs.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};

use mig_nvml::{LockError, NodeLock};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

const WHAT: &str = "MIG_NVML_TEST_WHAT";
const FILE: &str = "MIG_NVML_TEST_FILE";

/// Runs `tried_in_another_process` there.
fn in_another_process(file: &Path, what: &str) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command.args(["--exact", "tried_in_another_process", "--nocapture"]);
    command.env(FILE, file).env(WHAT, what).status().unwrap()
}

/// The other process's part: nothing by itself.
#[test]
fn tried_in_another_process() {
    let (Some(file), Some(what)) = (std::env::var_os(FILE), std::env::var_os(WHAT)) else { return };
    let taken = NodeLock::acquire(Path::new(&file), "the other process");
    match what.to_str().unwrap() {
        "take" => drop(taken.unwrap()),
        "die" => {
            let _held = taken.unwrap();
            std::process::abort();
        }
        "be refused" => {
            let LockError::Held { pid, what, command } = taken.unwrap_err() else { panic!("another error") };
            assert_eq!(pid, Some(std::os::unix::process::parent_id()));
            assert_eq!(what.as_deref(), Some("migctl apply"));
            // The kernel keeps 15 characters of a command's name.
            let ours = std::env::current_exe().unwrap().file_name().unwrap().to_str().unwrap()[..15].to_owned();
            assert_eq!(command, Some(ours));
        }
        other => panic!("{other}"),
    }
}

struct Place {
    _folder: TempDir,
    file: PathBuf,
}

fn place() -> Place {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("run/mig/lock");
    Place { _folder: folder, file }
}

/// Somebody who holds the lock and has written this about itself.
fn hold(file: &Path, text: &[u8]) -> File {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut held = File::create(file).unwrap();
    held.write_all(text).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    held
}

#[test]
fn one_process_has_it_and_others_learn_who() {
    let Place { file, _folder } = place();
    let lock = NodeLock::acquire(&file, "migctl apply").unwrap();
    assert!(in_another_process(&file, "be refused").success());
    let mine = NodeLock::acquire(&file, "migctl create").unwrap_err().to_string();
    assert!(mine.contains(&format!("migctl apply (process {}, ", std::process::id())), "{mine}");
    drop(lock);
    assert!(in_another_process(&file, "take").success());
    let _lock = NodeLock::acquire(&file, "migctl apply").unwrap();
}

#[test]
fn the_dead_hold_nothing() {
    let Place { file, _folder } = place();
    assert_eq!(in_another_process(&file, "die").signal(), Some(6), "abort");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\nthe other process\n"), "{text}");
    let _lock = NodeLock::acquire(&file, "short").unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with(&format!("{}\nshort\npid:[", std::process::id())), "{text}");
    assert!(!text.contains("other"), "{text}");
}

#[test]
fn nonsense_in_the_file_decides_nothing_and_is_not_repeated() {
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap().into_os_string().into_string().unwrap();
    let us = std::process::id();
    for (text, expected) in [
        (String::new(), (None, None)),
        ("x".to_owned(), (None, None)),
        (format!("{us}"), (None, None)),
        (format!("{us}\nmigctl apply\n"), (None, Some("migctl apply"))),
        (format!("{us}\nmigctl apply\npid:[1]\n"), (None, Some("migctl apply"))),
        (format!("4294967295\nmigctl apply\n{namespace}\n"), (None, Some("migctl apply"))),
        (format!("{us}\nmigctl \u{1b}[31m\n{namespace}\n"), (Some(us), Some("migctl \u{fffd}[31m"))),
        (format!("{us}\n\n{namespace}\n"), (Some(us), None)),
    ] {
        let Place { file, _folder } = place();
        let held = hold(&file, text.as_bytes());
        let error = NodeLock::acquire(&file, "us").unwrap_err();
        let LockError::Held { pid, what, .. } = &error else { panic!("{error}") };
        assert_eq!((*pid, what.as_deref()), expected, "{text:?}");
        assert!(error.to_string().starts_with("the GPUs of this node are being changed by "), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text, "what a holder wrote stays");
        // As NodeLock does: a child that another test is starting may still have the file.
        flock(&held, FlockOperation::Unlock).unwrap();
        NodeLock::acquire(&file, "us").unwrap();
    }
}

#[test]
fn the_file_is_its_makers_alone_and_never_behind_a_link() {
    let Place { file, _folder } = place();
    drop(NodeLock::acquire(&file, "us").unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600, "who may not open it can't hold it");
    assert_eq!(mode(file.parent().unwrap()), 0o755);

    let elsewhere = file.with_file_name("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    fs::remove_file(&file).unwrap();
    symlink(&elsewhere, &file).unwrap();
    for path in [file.as_path(), file.parent().unwrap(), Path::new("/dev/null")] {
        let error = NodeLock::acquire(path, "us").unwrap_err();
        assert!(matches!(&error, LockError::Io { path: of, .. } if of == path), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
}

#[test]
fn a_file_that_is_no_lock_stays_as_it_is() {
    let Place { file, _folder } = place();
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let precious = "root: the whole of it\n".repeat(100);
    fs::write(&file, &precious).unwrap();
    let error = NodeLock::acquire(&file, "us").unwrap_err().to_string();
    assert!(error.contains("it holds something else"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), precious);
}

/// Each tidies up before it lets go, so that others hold a file that is nowhere any more, or are about to.
#[test]
fn two_never_hold_it_though_the_file_is_removed_each_time() {
    let Place { file, _folder } = place();
    let holders = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let Ok(lock) = NodeLock::acquire(&file, "us") else { continue };
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "another holds it too");
                    std::thread::yield_now();
                    holders.fetch_sub(1, Ordering::SeqCst);
                    fs::remove_file(&file).unwrap();
                    drop(lock);
                }
            });
        }
    });
}
