//! The image, as far as it can be proven where nothing builds images: its layers have every file that the build reads, its
//! compiler is new enough for what is compiled.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use super::tools::{Folder, right, said, tool};
use super::{root, text};

/// What the build stage copies into the image, up to a line of the Dockerfile.
fn copied(until: &str) -> Vec<String> {
    let dockerfile = text("deploy/Dockerfile");
    let (stage, _) = dockerfile.split_once(until).unwrap_or_else(|| panic!("there is no {until}"));
    let lines = stage.lines().filter_map(|line| line.strip_prefix("COPY "));
    lines
        .flat_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words[..words.len() - 1].iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()
        })
        .collect()
}

/// What cargo says of a folder: an error, or all packages that are compiled into an image.
fn metadata(folder: &Path) -> Result<serde_json::Value, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-musl"])
        .current_dir(folder)
        .output()
        .expect("cargo runs");
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).expect("it prints JSON")),
        false => Err(said(&output)),
    }
}

/// The files that the compiler read for the library and the binary, as it listed them beside what it made. Clippy lists its
/// own configuration too, which no build reads.
fn read_by_the_compiler() -> BTreeSet<PathBuf> {
    let made = Path::new(env!("CARGO_BIN_EXE_foldd")).with_file_name("deps");
    let entries = std::fs::read_dir(&made).unwrap_or_else(|error| panic!("{}: {error}", made.display()));
    let lists = entries.map(|entry| entry.expect("it can be read").path()).filter(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("foldd-") && name.ends_with(".d")
    });
    let mut read = BTreeSet::new();
    for list in lists {
        let text = std::fs::read_to_string(&list).expect("a list can be read");
        let words = text.split_whitespace().filter(|word| !word.ends_with(':') && !word.starts_with('#'));
        for path in words.map(|word| without_detours(Path::new(word))) {
            let within = path.strip_prefix(root()).unwrap_or(&path);
            if within.is_relative() && root().join(within).is_file() && !within.ends_with(".clippy.toml") {
                read.insert(within.to_owned());
            }
        }
    }
    read
}

/// `src/store/../../migrations` as `migrations`.
fn without_detours(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}

#[test]
fn the_layers_have_every_file_that_the_build_reads() {
    let copied = copied("FROM scratch");
    assert!(copied.len() > 3, "{copied:?}");
    let read = read_by_the_compiler();
    for folder in ["src", "migrations", "config"] {
        assert!(read.iter().any(|path| path.starts_with(folder)), "nothing of {folder} in {read:?}");
    }
    for path in read {
        assert!(copied.iter().any(|folder| path.starts_with(folder)), "{} is not copied", path.display());
    }
    let ignored = text(".dockerignore");
    for path in copied {
        assert!(root().join(&path).exists(), "{path} is copied, and is not there");
        assert!(!ignored.lines().any(|line| line.trim_matches('/') == path), "{path} is ignored");
    }
}

#[test]
fn cargo_takes_both_the_layer_of_the_dependencies_and_the_whole() {
    // What the first layer makes up; the second copies the real ones over it.
    let made_up = ["src/main.rs", "src/lib.rs", "benches/figures/main.rs"];
    for (name, until) in [("dependencies", "RUN mkdir"), ("whole", "FROM scratch")] {
        let folder = Folder::new("image");
        copied(until).iter().for_each(|path| folder.copy(path));
        if name == "dependencies" {
            made_up.iter().for_each(|path| folder.write(path, ""));
        }
        let result = metadata(folder.path());
        assert!(result.is_ok(), "{name}: {result:?}");
    }
}

/// `1.94` or `1.94.0`, comparable.
fn version(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().expect("versions are numbers")).collect()
}

#[test]
fn nothing_that_is_compiled_wants_a_newer_compiler_than_the_image_has() {
    let dockerfile = text("deploy/Dockerfile");
    let image = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("FROM rust:"))
        .and_then(|rest| rest.split('-').next())
        .expect("the build stage is Rust's");
    let metadata = metadata(&root()).expect("cargo knows this package");
    let packages = metadata["packages"].as_array().expect("it lists packages");
    assert!(packages.len() > 50);
    for package in packages {
        if let Some(wanted) = package["rust_version"].as_str() {
            assert!(version(wanted) <= version(&format!("{image}.99")), "{} wants {wanted}", package["name"]);
        }
    }
    assert!(text("Cargo.toml").contains(&format!("rust-version = \"{image}\"")), "one version is promised");
    let setup = text("deploy/setup.sh");
    assert!(setup.contains(&format!("install Rust {image} or newer")), "setup.sh asks for the same");
}

#[test]
fn the_image_is_a_binary_on_an_empty_base_that_is_nobody() {
    let dockerfile = text("deploy/Dockerfile");
    let (_, last) = dockerfile.rsplit_once("FROM ").expect("it has stages");
    let lines: Vec<&str> = last.lines().collect();
    assert_eq!(lines[0], "scratch");
    assert_eq!(lines.iter().filter(|line| line.starts_with("COPY") || line.starts_with("ADD")).count(), 1);
    let user = lines.iter().find_map(|line| line.strip_prefix("USER ")).expect("it has a user");
    let deployment = text("deploy/base/deployment.yaml");
    let (uid, gid) = user.split_once(':').expect("with a group, both numbers: an empty base has no names");
    assert!(deployment.contains(&format!("runAsUser: {uid}\n")), "{user}");
    assert!(deployment.contains(&format!("runAsGroup: {gid}\n")), "{user}");
    if let Some(output) = tool("hadolint", &["deploy/Dockerfile"], &root()) {
        right(&output);
    }
}
