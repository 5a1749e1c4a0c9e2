//! The Helm chart, with real helm on a real API server.

mod generated;
mod installing;
mod kustomize;
mod monitoring;
mod objects;
mod page;
mod readme;
mod rendering;
mod rights;
mod tenant_roles;
mod values;
