//! acrcred against real parts: etcd, API server, controller manager, registry and crane, and the Azure
//! emulator in place of Azure. All tests share one control plane; each owns its namespace, tenant,
//! client id and registries, and runs an acrcred of its own.

mod changes;
mod chart;
mod clouds;
mod crashes;
mod custom_cloud;
mod distrust;
mod drift;
mod error_codes;
mod faults;
mod gitops;
mod harness;
mod hosts;
mod identities;
mod impersonation;
mod impersonation_rights;
mod kubernetes_faults;
mod layout;
mod leaks;
mod lifetimes;
mod links;
mod manifests;
mod monitoring;
mod neighbours;
mod ownership;
mod policy;
mod program;
mod protocol;
mod pulling;
mod refreshing;
mod registries;
mod replicas;
mod repositories;
mod rights;
mod rotation;
mod schema;
mod secrets_policy;
mod sharing;
mod stolen_token;
mod suspending;
mod takeover;
mod test_azure;
mod upgrading;
mod vectors;
