//! Builds what runs in the lab: Kubernetes itself ([`controlplane`]), FerroLB's and the
//! workload's static binaries ([`binaries`]), MetalLB to compare with ([`metallb`]), and the
//! container images made of them.

pub mod binaries;
pub mod cache;
pub mod controlplane;
pub mod metallb;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::image::Image;
use crate::steps::Steps;

/// The image of every pod's sandbox: a process that only waits.
pub const PAUSE_IMAGE: &str = "lab/pause:1";
/// The image of a small web server that says who asks and who answers; it listens on port 8080.
pub const ECHO_IMAGE: &str = "lab/echo:1";
/// The user FerroLB's controller and the workload run as.
const NOBODY: u32 = 65534;

/// The name of an image of FerroLB: `program` is `controller` or `speaker`.
pub fn ferrolb_image(program: &str) -> String {
    format!("docker.io/ferrolb/{program}:{}", env!("CARGO_PKG_VERSION"))
}

/// Builds and packs the images every lab needs: [`PAUSE_IMAGE`] and [`ECHO_IMAGE`].
pub fn workload_images(steps: &Steps) -> Result<Vec<PathBuf>> {
    let built = binaries::build(
        steps,
        "the workload",
        &["-p", "ferrolb-e2e", "--bin", "workload"],
    )?;
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

/// Builds and packs FerroLB's own images, laid out as the Dockerfile does: `/controller` run as
/// user 65534, `/speaker` run as root.
pub fn ferrolb_images(steps: &Steps) -> Result<Vec<PathBuf>> {
    let built = binaries::build(
        steps,
        "FerroLB",
        &["-p", "ferrolb-controller", "-p", "ferrolb-speaker"],
    )?;
    let program = |name: &str| {
        built
            .get(name)
            .with_context(|| format!("cargo built no {name}"))
    };
    pack(&[
        Image::of_program(
            &ferrolb_image("controller"),
            "/controller",
            program("controller")?,
        )
        .user(NOBODY),
        Image::of_program(&ferrolb_image("speaker"), "/speaker", program("speaker")?),
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
