//! Packs static binaries into a container image without a container engine: a docker-archive tar
//! with one layer, what a `FROM scratch` Dockerfile of `COPY` lines gives. The bytes depend on
//! nothing but the input, so the same binaries always give the same image.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

/// A file to be put into an image.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// Absolute path inside the image, as `/controller`.
    pub path: String,
    /// Where its bytes are read from.
    pub source: PathBuf,
    /// Permission bits, as `0o755`.
    pub mode: u32,
}

/// A container image of one layer from scratch.
#[derive(Debug, Clone)]
pub struct Image {
    /// Name and tag, as `docker.io/ferrolb/controller:0.1.0`.
    pub name: String,
    /// What the layer holds.
    pub files: Vec<ImageFile>,
    /// Symbolic links in the layer: absolute path, and what it points to.
    pub links: Vec<(String, String)>,
    /// Program and fixed arguments (`ENTRYPOINT`).
    pub entrypoint: Vec<String>,
    /// Numeric user (`USER`); `None` is root.
    pub user: Option<u32>,
    /// Variables of the program, as `NAME=value` (`ENV`).
    pub environment: Vec<String>,
}

impl Image {
    /// An image of one executable file that is also the entry point.
    pub fn of_program(name: &str, path: &str, source: &Path) -> Self {
        Self {
            name: name.to_owned(),
            files: vec![ImageFile {
                path: path.to_owned(),
                source: source.to_owned(),
                mode: 0o755,
            }],
            links: Vec::new(),
            entrypoint: vec![path.to_owned()],
            user: None,
            environment: vec!["PATH=/".to_owned()],
        }
    }

    /// The same image with a symbolic link, `path`, to `target`.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.links.push((path.to_owned(), target.to_owned()));
        self
    }

    /// The same image started by this path in place of its program's own.
    #[must_use]
    pub fn started_as(mut self, path: &str) -> Self {
        self.entrypoint = vec![path.to_owned()];
        self
    }

    /// The same image run as this user.
    #[must_use]
    pub fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// The same image with these variables for its program.
    #[must_use]
    pub fn environment(mut self, variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter();
        self.environment
            .extend(variables.map(|(name, value)| format!("{name}={value}")));
        self
    }

    /// The same image with these arguments after the program.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.entrypoint
            .extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Writes the docker-archive to `archive`, replacing it in one step. Fails when a source file
    /// cannot be read or a path inside the image is not absolute.
    pub fn pack(&self, archive: &Path) -> Result<()> {
        let layer = self.layer()?;
        let layer_digest = hex(&layer);
        let mut config = json!({
            "Entrypoint": self.entrypoint,
            "Env": self.environment,
        });
        if let (Some(user), Some(config)) = (self.user, config.as_object_mut()) {
            config.insert("User".to_owned(), json!(user.to_string()));
        }
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        })
        .to_string();
        let config_name = format!("{}.json", hex(config.as_bytes()));
        let layer_name = format!("{layer_digest}/layer.tar");
        let manifest = json!([{
            "Config": config_name,
            "RepoTags": [self.name],
            "Layers": [layer_name],
        }])
        .to_string();

        let mut outer = tar::Builder::new(Vec::new());
        add(&mut outer, &config_name, config.as_bytes(), 0o644)?;
        add(&mut outer, &layer_name, &layer, 0o644)?;
        add(&mut outer, "manifest.json", manifest.as_bytes(), 0o644)?;
        let bytes = outer.into_inner()?;

        let directory = archive
            .parent()
            .context("an image archive needs a directory")?;
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        // Labs raised side by side may pack the same image: each writes its own file and renames it.
        let draft = archive.with_extension(format!("{}.part", std::process::id()));
        let mut file = fs::File::create(&draft)
            .with_context(|| format!("cannot write {}", draft.display()))?;
        file.write_all(&bytes)
            .with_context(|| format!("cannot write {}", draft.display()))?;
        fs::rename(&draft, archive).with_context(|| format!("cannot write {}", archive.display()))
    }

    /// The tar of the one layer.
    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = tar::Builder::new(Vec::new());
        for file in &self.files {
            let inside = self.inside(&file.path)?;
            let bytes = fs::read(&file.source)
                .with_context(|| format!("cannot read {}", file.source.display()))?;
            add(&mut layer, inside, &bytes, file.mode)?;
        }
        for (path, target) in &self.links {
            let mut header = owned_by_root();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            layer
                .append_link(&mut header, self.inside(path)?, target)
                .with_context(|| format!("cannot pack {path}"))?;
        }
        Ok(layer.into_inner()?)
    }

    /// A path of the image as a layer writes it.
    fn inside<'a>(&self, path: &'a str) -> Result<&'a str> {
        let inside = path.strip_prefix('/').unwrap_or_default();
        ensure!(
            !inside.is_empty(),
            "path {path:?} in image {} is not absolute",
            self.name
        );
        Ok(inside)
    }
}

/// The header of an entry owned by root with modification time 0.
fn owned_by_root() -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Adds one file.
fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = owned_by_root();
    header.set_size(u64::try_from(bytes.len())?);
    header.set_mode(mode);
    tar.append_data(&mut header, path, bytes)
        .with_context(|| format!("cannot pack {path}"))
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The machine's architecture by its name in the OCI image specification (Go's `GOARCH`).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn entries(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        tar::Archive::new(archive)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                assert_eq!(entry.header().mtime().unwrap(), 0);
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                (entry.path().unwrap().display().to_string(), bytes)
            })
            .collect()
    }

    #[test]
    fn an_archive_names_its_parts_by_their_digests_and_is_always_the_same() {
        let room = std::env::temp_dir().join(format!("ferrolb-image-{}", std::process::id()));
        fs::create_dir_all(&room).unwrap();
        let program = room.join("program");
        fs::write(&program, b"bytes of a program").unwrap();
        let image = Image::of_program("docker.io/ferrolb/controller:1", "/controller", &program)
            .user(65534);
        let (first, second) = (room.join("a.tar"), room.join("b.tar"));
        image.pack(&first).unwrap();
        image.pack(&second).unwrap();
        let bytes = fs::read(&first).unwrap();
        assert_eq!(bytes, fs::read(&second).unwrap());

        let files = entries(&bytes);
        let file = |name: &str| {
            files
                .iter()
                .find(|(path, _)| path == name)
                .unwrap()
                .1
                .clone()
        };
        let manifest: serde_json::Value = serde_json::from_slice(&file("manifest.json")).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "docker.io/ferrolb/controller:1");
        let config_name = manifest[0]["Config"].as_str().unwrap();
        let config = file(config_name);
        assert_eq!(config_name, format!("{}.json", hex(&config)));
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["config"]["User"], "65534");
        assert_eq!(config["config"]["Entrypoint"][0], "/controller");
        let layer = file(manifest[0]["Layers"][0].as_str().unwrap());
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            format!("sha256:{}", hex(&layer))
        );
        assert_eq!(
            entries(&layer),
            [("controller".to_owned(), b"bytes of a program".to_vec())]
        );
        fs::remove_dir_all(&room).unwrap();
    }

    #[test]
    fn a_link_is_in_the_layer_and_may_be_what_is_started() {
        let image = Image::of_program("a:1", "/ferrolb", Path::new("/dev/null"))
            .link("/speaker", "ferrolb")
            .started_as("/speaker");
        assert_eq!(image.entrypoint, ["/speaker"]);
        let layer = image.layer().unwrap();
        let mut archive = tar::Archive::new(&layer[..]);
        let links: Vec<_> = archive
            .entries()
            .unwrap()
            .filter_map(|entry| {
                let entry = entry.unwrap();
                let target = entry.link_name().unwrap()?.display().to_string();
                Some((entry.path().unwrap().display().to_string(), target))
            })
            .collect();
        assert_eq!(links, [("speaker".to_owned(), "ferrolb".to_owned())]);
        let image = image.link("speaker", "ferrolb");
        assert!(image.layer().is_err(), "a relative path");
    }

    #[test]
    fn a_relative_path_is_refused() {
        let image = Image::of_program("a:1", "controller", Path::new("/dev/null"));
        assert!(image.pack(&std::env::temp_dir().join("never.tar")).is_err());
    }
}
