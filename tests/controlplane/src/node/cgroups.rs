//! The control groups of containers that are gone. They are no part of any namespace, so they outlive a node that was killed.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where both versions are mounted: version 1 with a folder for each controller.
const MOUNTED: &str = "/sys/fs/cgroup";
/// containerd's namespace for pods; other nodes of this machine may have groups beside ours.
const PARENT: &str = "k8s.io";

/// Removes the empty groups of containers, which are named like the folders in `tasks`.
pub(super) fn remove(tasks: &Path) {
    let ids: Vec<_> = entries(tasks)
        .filter_map(|path| path.file_name().map(ToOwned::to_owned))
        .collect();
    let hierarchies = entries(Path::new(MOUNTED)).chain([PathBuf::from(MOUNTED)]);
    for parent in hierarchies.map(|hierarchy| hierarchy.join(PARENT)) {
        for id in &ids {
            // Only an empty group can be removed, so nothing that lives is lost.
            let _ = fs::remove_dir(parent.join(id));
        }
        let _ = fs::remove_dir(parent);
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}
