//! The tree as ARCHITECTURE.md says it is. Each failure says what to do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap()
}

/// Crate → what it may name in its code (not in its tests) among these.
const WATCHED: [&str; 12] = [
    "openraft",
    "tokio",
    "axum",
    "hyper",
    "rusqlite",
    "dicom-ul",
    "object_store",
    "reqwest",
    "dicom-object",
    "clap",
    "prometheus",
    "rustix",
];

#[rustfmt::skip]
const ALLOWED: [(&str, &[&str]); 15] = [
    ("raft-types", &[]),
    ("raft-lanes", &["prometheus", "rustix"]),
    ("raft-wire", &["tokio", "prometheus"]),
    ("raft-placement", &[]),
    ("raft-groups", &["openraft", "tokio", "prometheus"]),
    ("raft-tier", &["object_store", "reqwest", "tokio"]),
    ("archive-model", &[]),
    ("archive-upper-layer", &["dicom-ul"]),
    ("archive-catalog", &["rusqlite", "prometheus", "rustix"]),
    ("archive-codec-wire", &[]),
    ("archive-service", &["tokio", "prometheus"]),
    ("archive-dimse", &["tokio", "prometheus"]),
    ("archive-web", &["tokio", "axum", "hyper", "prometheus"]),
    ("archive-server", &["tokio", "clap", "prometheus", "reqwest", "rustix"]),
    ("dload", &["tokio", "clap"]),
];

/// Crate → our own crates that it may name.
#[rustfmt::skip]
const ARROWS: [(&str, &[&str]); 15] = [
    ("raft-types", &[]),
    ("raft-lanes", &["raft-types"]),
    ("raft-wire", &["raft-types"]),
    ("raft-placement", &["raft-types"]),
    ("raft-groups", &["raft-types", "raft-lanes", "raft-placement"]),
    ("raft-tier", &["raft-types"]),
    ("archive-model", &[]),
    ("archive-upper-layer", &["archive-model"]),
    ("archive-catalog", &["archive-model", "raft-types"]),
    ("archive-codec-wire", &[]),
    ("archive-service", &["archive-model", "archive-catalog", "archive-codec-wire", "raft-types"]),
    ("archive-dimse", &["archive-model", "archive-upper-layer", "archive-service"]),
    ("archive-web", &["archive-model", "archive-service"]),
    ("archive-server", &["archive-model", "archive-catalog", "archive-service", "archive-dimse", "archive-web", "raft-types", "raft-lanes", "raft-wire", "raft-groups", "raft-placement", "raft-tier"]),
    ("dload", &[]),
];

#[test]
fn crates_name_only_what_their_arrows_allow() {
    let metadata = metadata();
    let own: BTreeSet<String> = metadata.packages.iter().map(|package| package.name.to_string()).collect();
    for package in &metadata.packages {
        let name = package.name.as_str();
        if name.starts_with("triptych-") {
            continue; // tests may name anything
        }
        let find =
            |table: &[(&str, &'static [&'static str])]| table.iter().find(|(own, _)| *own == name).map(|(_, may)| *may);
        let allowed = find(&ALLOWED)
            .unwrap_or_else(|| panic!("{name} is new: give it a row in tests/tidy and in ARCHITECTURE.md"));
        let arrows = find(&ARROWS).unwrap_or_default();
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal) {
            let to = dependency.name.as_str();
            assert!(
                !WATCHED.contains(&to) || allowed.contains(&to),
                "{name} names {to}; ARCHITECTURE.md has no such arrow"
            );
            assert!(!own.contains(to) || arrows.contains(&to), "{name} names {to}; ARCHITECTURE.md has no such arrow");
            assert!(
                !(name.starts_with("raft-") && to.starts_with("archive-")),
                "{name} names {to}: nothing in raft/ names archive/"
            );
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![root()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') && name != "data" {
                    waiting.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

#[test]
fn a_file_can_be_read_in_a_sitting_and_opens_with_what_it_is() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(
            lines <= 900,
            "{} has {lines} lines: the second idea in it gets a file with its own name",
            path.display()
        );
        let documented = text.starts_with("//!") || text.starts_with("#!") || path.ends_with("main.rs");
        assert!(documented, "{} does not open with what it is (`//! …`)", path.display());
    }
}

#[test]
fn nothing_is_left_to_be_done_in_the_code() {
    // Put together here, so that this file does not name them.
    let words = [["to", "do!("], ["unimple", "mented!("], ["db", "g!("]].map(|parts| parts.concat());
    for (path, text) in sources() {
        for word in &words {
            assert!(
                !text.contains(word.as_str()),
                "{} contains {word}…): finish it, or say in README that it is missing",
                path.display()
            );
        }
    }
}

#[test]
fn log_lines_name_no_patient() {
    let words = ["patient_name", "patient_id", "PatientName", "PATIENT_NAME", "PATIENT_ID", "birth"];
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let logs = ["info!(", "warn!(", "error!(", "debug!("].iter().any(|macro_name| line.contains(macro_name));
            let word = words.iter().find(|word| line.contains(**word));
            assert!(
                !logs || word.is_none(),
                "{}:{}: a log line names {word:?}: identify studies by UID",
                path.display(),
                number + 1
            );
        }
    }
}

#[test]
fn every_dependency_has_its_line_of_justification() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let table = manifest.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    for line in table.lines().filter(|line| line.contains('=') && !line.contains("path =")) {
        let name = line.split('=').next().unwrap().trim();
        assert!(
            architecture.contains(&format!("`{name}`")),
            "{name} has no line in ARCHITECTURE.md: say in one why it is used"
        );
    }
}

/// Every relative link of the documents leads somewhere.
#[test]
fn no_document_has_a_dead_link() {
    let root = root();
    let mut dead = Vec::new();
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "raft/lanes/DESIGN.md", "raft/wire/DESIGN.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap_or_else(|error| panic!("{document}: {error}"));
        let here = root.join(document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            let outside = link.starts_with("http") || target.is_empty();
            if !outside && !here.with_file_name("").join(target).exists() {
                dead.push(format!("{document} links to {link}, which is not there: write it, or take the link away"));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}
