//! The control groups of containers that are gone. They are no part of any namespace, so they outlive a node that was killed.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

/// Where both versions are mounted: version 1 with a folder for each controller.
const MOUNTED: &str = "/sys/fs/cgroup";
/// containerd's namespace for pods; other nodes of this machine may have groups beside ours.
const PARENT: &str = "k8s.io";

/// The containers that `tasks` has a folder for.
pub(super) fn containers(tasks: &Path) -> Vec<OsString> {
    entries(tasks)
        .filter_map(|path| path.file_name().map(ToOwned::to_owned))
        .collect()
}

/// Removes the groups of containers; tells whether all are gone. Only an empty group can be removed, so nothing that lives is lost.
pub(super) fn remove(containers: &[OsString]) -> bool {
    let hierarchies = entries(Path::new(MOUNTED)).chain([PathBuf::from(MOUNTED)]);
    let mut gone = true;
    for parent in hierarchies.map(|hierarchy| hierarchy.join(PARENT)) {
        for group in containers.iter().map(|container| parent.join(container)) {
            gone &= fs::remove_dir(&group).is_ok() || !group.exists();
        }
        let _ = fs::remove_dir(parent);
    }
    gone
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}
