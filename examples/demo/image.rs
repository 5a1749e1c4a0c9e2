//! A small private image: one layer with one file.

use std::fs;

use anyhow::Result;

use crate::folder::Folder;

/// An image in a registry.
pub struct Image {
    pub server: &'static str,
    /// Its path there.
    pub repository: &'static str,
    pub tag: &'static str,
    /// `sha256:…` of its manifest.
    pub digest: String,
}

const BLOCK: usize = 512;

impl Image {
    /// The repository, with its registry in front.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.server, self.repository)
    }

    pub fn reference(&self) -> String {
        format!("{}:{}", self.repository(), self.tag)
    }
}

/// Writes a layer that no other repository has; returns its path in the folder.
pub fn write_layer(folder: &Folder, server: &str, repository: &str) -> Result<String> {
    let name = format!("{server}-{}.tar", repository.replace('/', "-"));
    let content = format!("hello from {repository} in {server}\n");
    fs::write(folder.file(&name), tar("hello.txt", &content))?;
    Ok(name)
}

/// A tar archive (POSIX ustar) of one file.
fn tar(name: &str, content: &str) -> Vec<u8> {
    let mut header = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000444");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", content.len()));
    put(136, "00000000000");
    // The checksum counts itself as blanks.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\u{0}00");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(content.as_bytes());
    // The file fills its blocks, and two empty ones end the archive.
    archive.resize(BLOCK + content.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive
}
