//! House rules that no compiler checks: layers, sizes, stray prints, orphan shaders.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the lowest rank to the highest; each imports only from those before it. Modules in
/// one entry share a rank and may not import each other.
const RANKS: &[&[&str]] = &[
    &["limits"],
    &["packet", "gpu"],
    &["domain"],
    &["embed"],
    &["fingerprint"],
    &["address"],
    &["merge"],
    &["distill", "engine", "store"],
    &["ingest", "mailbox", "proof", "tune"],
    &["node"],
    &["net"],
    &["serve"],
    &["run", "job", "eval", "bench", "doctor", "sim"],
    &["demo"],
    &["cli"],
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = vec![];
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "no .{extension} under {folder}");
    found.sort();
    found
}

/// Code without comments, so that a doc may point anywhere.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|rank| rank.contains(&module))
}

/// The modules that a path after `crate::` begins with: `a::b` or `{a, b::c}`.
fn names(rest: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    match rest.strip_prefix('{').and_then(|list| list.split_once('}')) {
        Some((list, _)) => list.split(',').map(name).collect(),
        None => vec![name(rest)],
    }
}

#[test]
fn a_module_imports_only_from_lower_ranks() {
    let source = root().join("src");
    let mut wrong = vec![];
    for (path, text) in files("src", "rs") {
        let inside = path.strip_prefix(&source).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let own = rank(module).unwrap_or_else(|| panic!("module `{module}` has no rank"));
        for (at, _) in code(&text).match_indices("crate::") {
            for used in names(&code(&text)[at + "crate::".len()..]) {
                match rank(&used) {
                    Some(other) if other < own || used == module => {}
                    Some(_) => wrong.push(format!("{}: uses crate::{used}", inside.display())),
                    None => wrong.push(format!("{}: crate::{used} has no rank", inside.display())),
                }
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "imports against the ranks:\n{}", wrong.join("\n"));
}

#[test]
fn the_map_lists_every_module_in_the_order_of_the_ranks() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mapped: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! | [`")?.split_once("`]"))
        .map(|row| row.0)
        .collect();
    let mut declared: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let ranks: Vec<usize> = mapped.iter().map(|module| rank(module).unwrap()).collect();
    assert!(ranks.is_sorted(), "{mapped:?}");
    let mut all = mapped.clone();
    all.sort_unstable();
    declared.sort_unstable();
    assert_eq!(all, declared);
}

#[test]
fn a_file_is_a_room() {
    for (path, text) in
        files("src", "rs").into_iter().chain(files("tests", "rs")).chain(files("shaders", "wgsl"))
    {
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines: split it by meaning", path.display());
    }
}

#[test]
fn only_the_output_of_the_command_line_prints() {
    for (path, text) in files("src", "rs") {
        let shown = path.strip_prefix(root()).unwrap().to_str().unwrap().to_string();
        if shown == "src/cli/output.rs" || shown.ends_with("tests.rs") {
            continue;
        }
        // The engine says in one line that a GPU has failed, whatever command it serves.
        let text = match shown.as_str() {
            "src/engine/mod.rs" => code(&text).replace("eprintln!", ""),
            _ => code(&text),
        };
        // They panic where the reader has gone away; output.rs does not.
        for print in ["println!", "print!(", "dbg!"] {
            assert!(!text.contains(print), "{shown} prints with {print}");
        }
    }
}

#[test]
fn only_gpu_uses_wgpu_and_only_net_uses_libp2p() {
    for (path, text) in files("src", "rs") {
        let shown = path.strip_prefix(root()).unwrap().to_str().unwrap().to_string();
        for (library, home) in [("wgpu::", "src/gpu/"), ("libp2p", "src/net/"), ("fjall", "src/store/")] {
            assert!(!code(&text).contains(library) || shown.starts_with(home), "{shown} uses {library}");
        }
    }
}

#[test]
fn every_shader_has_a_twin_of_its_name() {
    for (path, _) in files("shaders", "wgsl") {
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        let twin = root().join("src").join(&name).join("cpu.rs");
        let text = fs::read_to_string(&twin).unwrap_or_else(|_| panic!("no {}", twin.display()));
        assert!(text.contains(&format!("pub fn {name}(")), "no function `{name}` in {}", twin.display());
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = ["todo!(", "unimplemented!(", concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    for (path, text) in ["src", "tests", "benches"].iter().flat_map(|folder| files(folder, "rs")) {
        for mark in marks {
            assert!(!text.contains(mark) || path.ends_with("house.rs"), "{}: {mark}", path.display());
        }
    }
}

#[test]
fn paths_in_the_readme_exist() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
        assert!(Path::new(&root().join(link)).exists(), "README links to {link}");
    }
}
