//! acrcred as it runs in a cluster: a pod from its own image, on a real node whose containerd and kubelet pull private images with the
//! Secrets that it keeps. Needs root and Debian; elsewhere each test says that it was skipped, and why.

#[path = "../e2e/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "tests/e2e uses the rest of it")]
mod harness;

mod bare;
mod dockerfile;
mod images;
mod install;
mod leftovers;
mod name_server;
mod pods;
mod stage;
mod stories;
