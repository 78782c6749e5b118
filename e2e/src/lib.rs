//! The lab: a real Kubernetes cluster in network namespaces, and the tests that run on it.
//!
//! [`lab::Lab`] raises, breaks and removes a cluster; [`artifact`] builds what runs on it;
//! [`image`] packs static binaries into container images without a container engine; [`docs`] runs
//! what the documentation says.

pub mod artifact;
pub mod bench;
pub mod deploy;
pub mod docs;
pub mod image;
pub mod istio;
pub mod lab;
pub mod observe;
pub mod steps;

pub use lab::Lab;
