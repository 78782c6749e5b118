//! What is expensive to build, kept in the user's cache under a hash of its sources, so that a fresh clone finds it
//! again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use anyhow::{Context, Result, ensure};

use crate::image::hex;
use crate::steps::{SIGN_OF_LIFE, Steps};

/// Something to be built once.
#[derive(Debug, Clone, Copy)]
pub struct Recipe<'a> {
    /// What it is called in progress lines: `Kubernetes v1.35.4`.
    pub what: &'a str,
    /// What its directory in the cache begins with: `controlplane`.
    pub name: &'a str,
    /// Everything the result depends on.
    pub sources: &'a [u8],
    /// The files that are there when it is built.
    pub files: &'a [&'a str],
}

impl Recipe<'_> {
    /// Returns the directory with the files. When the cache has none for these sources, `build` makes them in the empty
    /// directory it is given. Builders wait for one another.
    ///
    /// # Errors
    /// The cache cannot be written, `build` fails, or it does not make every file.
    pub fn fetch(&self, steps: &Steps, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let mut sources = env::consts::ARCH.as_bytes().to_vec();
        sources.extend(self.sources);
        let hash = hex(&sources).split_at(16).0.to_owned();
        self.fetch_into(steps, &directory()?, &hash, build)
    }

    fn fetch_into(
        &self,
        steps: &Steps,
        cache: &Path,
        hash: &str,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let room = cache.join(format!("{}-{hash}", self.name));
        let complete = || self.files.iter().all(|file| room.join(file).exists());
        if complete() {
            return Ok(room);
        }
        fs::create_dir_all(&room).with_context(|| format!("cannot make {}", room.display()))?;
        let lock = fs::File::create(cache.join(format!("{}-{hash}.lock", self.name)))?;
        self.wait_for_lock(steps, &lock)?;
        if complete() {
            return Ok(room);
        }
        // A builder that was killed may have left its compiler running: everyone has their own draft.
        for entry in fs::read_dir(&room)?.flatten() {
            let path = entry.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "part")
            {
                // One that is gone already is as good.
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
        let draft = room.join(format!("{}.part", std::process::id()));
        fs::create_dir_all(&draft).with_context(|| format!("cannot make {}", draft.display()))?;
        build(&draft)?;
        for file in self.files {
            fs::rename(draft.join(file), room.join(file))
                .with_context(|| format!("{}: no {file} was built", self.what))?;
        }
        fs::remove_dir_all(&draft).with_context(|| format!("cannot remove {}", draft.display()))?;
        Ok(room)
    }

    /// Waits until no other process builds the same; the lock ends with the open file.
    fn wait_for_lock(&self, steps: &Steps, lock: &fs::File) -> Result<()> {
        let mut shown = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(()),
                Err(fs::TryLockError::WouldBlock) => {}
                Err(fs::TryLockError::Error(error)) => {
                    ensure!(
                        error.kind() == io::ErrorKind::Interrupted,
                        "cannot lock the cache: {error}"
                    );
                }
            }
            if shown.elapsed() >= SIGN_OF_LIFE {
                shown = Instant::now();
                steps.say(&format!("waiting: {} is being built elsewhere", self.what));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// `${XDG_CACHE_HOME:-$HOME/.cache}/ferrolb`.
fn directory() -> Result<PathBuf> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    let cache = cache
        .context("neither XDG_CACHE_HOME nor HOME names an absolute directory for the cache")?;
    Ok(cache.join("ferrolb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: Recipe = Recipe {
        what: "a thing",
        name: "thing",
        sources: b"",
        files: &["a", "b"],
    };

    #[test]
    fn a_thing_is_built_once_and_whole_or_not_at_all() {
        let cache = env::temp_dir().join(format!("ferrolb-cache-{}", std::process::id()));
        let steps = Steps::start();
        let half = RECIPE.fetch_into(&steps, &cache, "1", |draft| {
            Ok(fs::write(draft.join("a"), "half")?)
        });
        let error = format!("{:#}", half.unwrap_err());
        assert!(error.contains("no b was built"), "{error}");

        let whole = |draft: &Path| {
            assert_eq!(fs::read_dir(draft)?.count(), 0, "the draft is not empty");
            fs::write(draft.join("left"), "over")?;
            fs::write(draft.join("a"), "A")?;
            Ok(fs::write(draft.join("b"), "B")?)
        };
        let room = RECIPE.fetch_into(&steps, &cache, "1", whole).unwrap();
        assert_eq!(fs::read_to_string(room.join("a")).unwrap(), "A");
        let files = fs::read_dir(&room).unwrap().count();
        assert_eq!(files, 2, "a and b, and nothing of the draft");

        let again = RECIPE.fetch_into(&steps, &cache, "1", |_| panic!("built twice"));
        assert_eq!(again.unwrap(), room);
        let other = RECIPE.fetch_into(&steps, &cache, "2", whole).unwrap();
        assert_ne!(other, room, "other sources have their own");
        fs::remove_dir_all(&cache).unwrap();
    }
}
