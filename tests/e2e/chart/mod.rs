//! The Helm chart, with real helm on a real API server.

mod generated;
mod installing;
mod kustomize;
mod objects;
mod readme;
mod rendering;
mod rights;
mod values;
