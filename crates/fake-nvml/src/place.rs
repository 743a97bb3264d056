//! Where this library was loaded from: a container that nobody gave a variable finds the node's machine beside it.

use std::{fs, path::PathBuf};

/// What `fake-nvml node` calls the state directory that it puts beside the library.
pub const STATE: &str = "fake-nvml";

/// The machine in the folder beside this library's file, when there is one.
pub(crate) fn machine_beside_library() -> Option<PathBuf> {
    let state = library()?.parent()?.join(STATE);
    state.join("control").is_file().then_some(state)
}

/// The file that this code was mapped from.
fn library() -> Option<PathBuf> {
    let here = (machine_beside_library as fn() -> Option<PathBuf>) as usize;
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let holds = usize::from_str_radix(start, 16).ok()? <= here && here < usize::from_str_radix(end, 16).ok()?;
        // Permissions, offset, device and inode, then the path, which may hold spaces itself.
        holds.then(|| rest.splitn(5, ' ').nth(4))?.map(str::trim_start)
    })?;
    // Another one may have been put in its place since.
    Some(PathBuf::from(path.strip_suffix(" (deleted)").unwrap_or(path)))
}
