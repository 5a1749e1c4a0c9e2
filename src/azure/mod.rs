//! From assertion to ACR token: Microsoft Entra, the registry, and the cache between objects.
//! Knows nothing of Kubernetes.

mod assertion;
mod cache;
mod entra;
mod floor;
#[cfg(test)]
mod fuzz;
mod minter;
mod registry;
mod transport;

pub use assertion::{AssertionFile, AssertionSource};
pub use minter::Minter;
pub use transport::{Transport, TransportConfig, TransportError};
