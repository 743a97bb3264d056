//! What README.md promises of a fresh machine: what is missing is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use docs::repository;

/// `storage.sh` has a function that is called `buildah`, which is no reason to think that the program is there.
#[test]
fn buildah_is_installed_where_it_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let programs = directory.path().join("bin");
    let cache = directory.path().join("mig-agent/image");
    fs::create_dir_all(&programs).unwrap();
    fs::create_dir_all(&cache).unwrap();
    let installer = programs.join("apt-get");
    fs::write(&installer, "#!/bin/sh\necho \"apt-get $*\"\n").unwrap();
    fs::set_permissions(&installer, fs::Permissions::from_mode(0o755)).unwrap();

    let script = repository::root().join("deploy/image/storage.sh");
    let output = Command::new("/bin/bash")
        .args(["-euc", "source \"$1\"; need buildah:buildah apt-get:apt", "bash"])
        .arg(script)
        .env("PATH", &programs)
        .env("XDG_CACHE_HOME", directory.path())
        .output()
        .unwrap();

    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "image: installing buildah\n");
    let ran = fs::read_to_string(cache.join("apt.log")).unwrap();
    assert!(ran.lines().any(|line| line.ends_with("install -qy --no-install-recommends buildah")), "{ran}");
}
