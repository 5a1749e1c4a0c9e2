//! The Dockerfile: what a linter would say, and what the image that the tests assemble takes from it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use controlplane::node::image::{self, Stage};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text() -> Result<String> {
    Ok(fs::read_to_string(root().join("Dockerfile"))?)
}

/// The last stage: what the image holds.
pub fn stage() -> Result<Stage> {
    Stage::last_of(&text()?)
}

/// The program that goes into it.
pub fn program() -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    Ok(image::program(target.context("the target folder")?))
}

#[test]
fn base_images_are_pinned_and_the_compiler_is_the_one_of_the_repository() -> Result<()> {
    let toolchain = fs::read_to_string(root().join("rust-toolchain.toml"))?;
    let mut bases = Vec::new();
    let instructions = image::instructions(&text()?);
    for (_, arguments) in instructions.iter().filter(|(name, _)| name == "FROM") {
        let base = arguments
            .split_whitespace()
            .find(|word| !word.starts_with("--"))
            .context("a base image")?;
        bases.push(base.to_owned());
        if base == "scratch" {
            continue;
        }
        let (name, tag) = base.split_once(':').context("a tag")?;
        assert_eq!(name, "rust");
        let version = tag.split('-').next().context("a version")?;
        assert_eq!(version.split('.').count(), 3, "{tag}: an exact version");
        assert!(
            toolchain.contains(&format!("channel = \"{version}\"")),
            "rust-toolchain.toml names another version than {base}"
        );
        assert!(
            instructions.contains(&("ENV".into(), format!("RUSTUP_TOOLCHAIN={version}"))),
            "the compiler of {base} is the one that builds"
        );
    }
    assert_eq!(bases.last().map(String::as_str), Some("scratch"));
    Ok(())
}

#[test]
fn the_image_holds_two_files_and_runs_as_nobody_without_a_shell() -> Result<()> {
    let stage = stage()?;
    let targets: Vec<&str> = stage.copies.iter().map(|(_, to)| to.as_str()).collect();
    assert_eq!(targets, ["/etc/ssl/certs/ca-certificates.crt", "/acrcred"]);
    assert_eq!(stage.entrypoint, ["/acrcred"]);
    // By number, so that the kubelet can see that it is not root.
    let user: u32 = stage.user.split(':').next().context("a user")?.parse()?;
    assert!(user > 0);
    Ok(())
}

#[test]
fn the_context_holds_nothing_but_sources() -> Result<()> {
    let ignore = fs::read_to_string(root().join(".dockerignore"))?;
    let mut lines = ignore.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"), "everything is left out at first");
    for line in lines {
        let path = line.strip_prefix('!').context("an exception")?;
        assert!(root().join(path).exists(), "{path} does not exist");
        assert!(!["target", ".git"].contains(&path), "{path}");
    }
    Ok(())
}
