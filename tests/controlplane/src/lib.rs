//! A real Kubernetes control plane on loopback, for tests and the demo.
//!
//! ```text
//! test ──► ControlPlane ──stdin pipe──► controlplane run ──► etcd
//!            clients, manifests,          the supervisor       kube-apiserver
//!            identities, audit                                 kube-controller-manager
//! ```
//!
//! The programs are plain processes, built from pinned Go modules on first use ([`Tools`]). The supervisor keeps them in process
//! groups and ends all of them when its stdin closes, so that a test that panics or is killed leaves nothing behind.

mod audit;
mod control_plane;
pub mod fault_proxy;
mod identities;
mod kubeconfig;
mod manifests;
pub mod node;
mod ready;
mod supervised;
pub mod supervisor;
mod tools;
mod wait;

pub use audit::{Audit, Call, Calls};
pub use control_plane::{ControlPlane, Options};
pub use kubeconfig::client_config;
pub use manifests::{Manifests, apply};
pub use ready::{Jwks, Ready};
pub use tools::{Tool, Tools};
pub use wait::eventually;
