//! Builds what runs in the lab: Kubernetes itself ([`controlplane`]), FerroLB's and the
//! workload's static binaries ([`binaries`]), MetalLB to compare with ([`metallb`]), Helm ([`helm`]), Istio ([`istio`]), and the
//! container images made of them.

pub mod binaries;
pub mod cache;
pub mod controlplane;
mod ferrolb;
pub mod helm;
pub mod istio;
pub mod metallb;
pub mod module;
pub mod prometheus;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use self::ferrolb::{ferrolb_image, ferrolb_images, ferrolb_program};
use crate::image::Image;
use crate::steps::Steps;

/// The image of every pod's sandbox: a process that only waits.
pub const PAUSE_IMAGE: &str = "lab/pause:1";
/// The image of a small web server that says who asks and who answers; it listens on port 8080.
pub const ECHO_IMAGE: &str = "lab/echo:1";
/// The user FerroLB's controller and the workload run as.
const NOBODY: u32 = 65534;

/// Builds and packs the images every lab needs: [`PAUSE_IMAGE`] and [`ECHO_IMAGE`].
pub fn workload_images(steps: &Steps) -> Result<Vec<PathBuf>> {
    let built = binaries::build(steps, "the workload", "ferrolb-workload", "release")?;
    let program = built.get("workload").context("cargo built no workload")?;
    pack(&[
        Image::of_program(PAUSE_IMAGE, "/workload", program)
            .arguments(&["pause"])
            .user(NOBODY),
        Image::of_program(ECHO_IMAGE, "/workload", program)
            .arguments(&["echo"])
            .user(NOBODY),
    ])
}

/// Packs images into the target directory and returns the archives.
fn pack(images: &[Image]) -> Result<Vec<PathBuf>> {
    let room = binaries::target_directory().join("images");
    images
        .iter()
        .map(|image| {
            let archive = room.join(format!("{}.tar", image.name.replace(['/', ':'], "_")));
            image.pack(&archive)?;
            Ok(archive)
        })
        .collect()
}

/// The root of the repository.
fn repository() -> &'static Path {
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    room.parent().unwrap_or(room)
}
