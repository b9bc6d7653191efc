//! The walls of the house, checked: who may import whom, who may touch the world, how things are named.
//!
//! The import table is read from `src/ARCHITECTURE.md`, so that the page and the check cannot part.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `src`, with its path relative to `src` and its text.
fn sources() -> Vec<(String, String)> {
    let base = root().join("src");
    let mut found = Vec::new();
    let mut folders = vec![base.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let name = path.strip_prefix(&base).unwrap().to_string_lossy().into_owned();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(found.len() > 40, "the scan found only {} files", found.len());
    found
}

/// The module a file belongs to: its first path part without `.rs`.
fn module_of(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The part of a file that ships: all before its test module; a file of tests ships nothing.
fn shipped<'a>(file: &str, text: &'a str) -> &'a str {
    if file.ends_with("tests.rs") || file.ends_with("testing.rs") {
        return "";
    }
    text.find("#[cfg(test)]\nmod ").map_or(text, |at| &text[..at])
}

/// Lines without comments; strings are left in.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line.split(" // ").next().unwrap()))
}

/// The rows of the table under the heading that says "may import": module → allowed modules.
fn import_table() -> BTreeMap<String, BTreeSet<String>> {
    let page = std::fs::read_to_string(root().join("src/ARCHITECTURE.md")).unwrap();
    let mut table = BTreeMap::new();
    let rows = page
        .lines()
        .skip_while(|line| !line.starts_with("| module | may import |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let ticked =
            |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let allowed: BTreeSet<String> = ticked(cells[1]).into_iter().collect();
        for module in ticked(cells[0]) {
            table.insert(module, allowed.clone());
        }
    }
    assert!(table.len() > 10, "the import table of src/ARCHITECTURE.md was not found");
    table
}

/// `crate::a::b` mentioned in a line, each as `a` and `a::b`.
fn crate_paths(line: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for part in line.split("crate::").skip(1) {
        let path: String =
            part.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
        let mut names = path.split("::").filter(|name| !name.is_empty());
        let Some(first) = names.next() else { continue };
        let second = names.next().map_or(first.to_owned(), |next| format!("{first}::{next}"));
        found.push((first.to_owned(), second));
    }
    found
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let table = import_table();
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let module = module_of(&file).to_owned();
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(allowed) = table.get(&module) else {
            wrong.push(format!("src/{file}: module `{module}` has no row in the import table"));
            continue;
        };
        if allowed.contains("*") {
            continue;
        }
        for (number, line) in code_lines(&text) {
            for (first, second) in crate_paths(line) {
                if first != module && !allowed.contains(&first) && !allowed.contains(&second) {
                    wrong.push(format!("src/{file}:{number}: `{module}` may not import `{first}`"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_edge_touches_the_world() {
    let edge = ["edge", "ua", "command", "main"];
    let words = [
        "tokio::",
        "sqlx::",
        "redis::",
        "axum::",
        "reqwest::",
        "async fn",
        "async move",
        ".await",
        "UdpSocket",
        "TcpStream",
    ];
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let module = module_of(&file);
        if edge.contains(&module) {
            continue;
        }
        for (number, line) in code_lines(shipped(&file, &text)) {
            for word in words {
                if line.contains(word) {
                    wrong.push(format!("src/{file}:{number}: `{word}` outside edge, ua and command"));
                }
            }
            if line.contains("std::fs") && module != "config" {
                wrong.push(format!("src/{file}:{number}: files are read by the edge"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_clock_reads_time() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        if file == "edge/clock.rs" {
            continue;
        }
        for (number, line) in code_lines(shipped(&file, &text)) {
            for word in
                ["Instant::now", "SystemTime::now", "Zoned::now", "Timestamp::now", "Utc::now", "now_v7"]
            {
                if line.contains(word) {
                    wrong.push(format!(
                        "src/{file}:{number}: `{word}`: time is read in edge/clock.rs and passed on"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_say_what_things_are() {
    let endings =
        ["Manager", "Handler", "Helper", "Util", "Service", "Processor", "Data", "Info", "Impl", "Context"];
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        for (number, line) in code_lines(&text) {
            let words: Vec<&str> = line.split_whitespace().collect();
            for pair in words.windows(2) {
                let name: String = pair[1].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let is_type = ["struct", "enum", "trait", "type"].contains(&pair[0]);
                if is_type && endings.iter().any(|end| name.ends_with(end)) {
                    wrong.push(format!("src/{file}:{number}: `{name}` says nothing; name the thing"));
                }
                if pair[0] == "fn" && name.starts_with("get_") && name != "get_mut" {
                    wrong.push(format!("src/{file}:{number}: `{name}`: no `get_`"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_open() {
    let marks = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
    ];
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            for mark in &marks {
                if line.contains(mark.as_str()) {
                    wrong.push(format!("src/{file}:{}: {mark}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_top_level_is_the_users() {
    let allowed =
        ["Cargo.toml", "Cargo.lock", "src", "dialplans", "web", "config", "tests", "fixtures", "README.md"];
    let made_here = ["target", "data", "tandem.toml"];
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let fine =
            name.starts_with('.') || allowed.contains(&name.as_str()) || made_here.contains(&name.as_str());
        assert!(fine, "`{name}` does not belong at the top level");
    }
}

/// Prints the longest files and functions for a person to look at; fails on none.
#[test]
fn the_longest_are_shown() {
    let mut files: Vec<(usize, String)> = Vec::new();
    let mut functions: Vec<(usize, String)> = Vec::new();
    for (file, text) in sources() {
        let code = shipped(&file, &text);
        files.push((code.lines().count(), file.clone()));
        functions.extend(function_lengths(&file, code));
    }
    files.sort_by(|a, b| b.cmp(a));
    functions.sort_by(|a, b| b.cmp(a));
    for (lines, what) in files.iter().take(10).chain(functions.iter().take(10)) {
        println!("{lines:5} {what}");
    }
}

/// Functions by indentation: rustfmt closes each at the column where it began.
fn function_lengths(file: &str, code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Vec<(usize, usize, String)> = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if line.contains("fn ") && line.trim_end().ends_with('{') {
            open.push((indent, number, line.trim().chars().take(60).collect()));
        } else if line.trim() == "}" && open.last().is_some_and(|(at, _, _)| *at == indent) {
            let (_, start, name) = open.pop().unwrap();
            found.push((number - start, format!("{file}: {name}")));
        }
    }
    found
}

/// Paths named in `Cargo.toml` must exist: a listed bench or test that is gone is a silent hole.
#[test]
fn declared_targets_exist() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for line in manifest.lines().filter(|line| line.starts_with("path = \"")) {
        let path = line.trim_start_matches("path = \"").trim_end_matches('"');
        assert!(Path::new(&root()).join(path).exists(), "Cargo.toml names {path}, which is not there");
    }
}

/// Every Rust and JavaScript file below `folders`, as one text.
fn text_below(folders: &[&str]) -> String {
    let mut all = String::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "node_modules" && name != "target" && name != "dist" {
                    open.push(path);
                }
            } else if [".rs", ".ts", ".js", ".mjs"].iter().any(|end| name.ends_with(end)) {
                all.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    all
}

/// Rows of the table of faults: id and the test names in its last cell.
fn fault_rows() -> Vec<(String, Vec<String>)> {
    let page = std::fs::read_to_string(root().join("src/ARCHITECTURE.md")).unwrap();
    page.lines()
        .skip_while(|line| !line.starts_with("| id | fault or attack | tests |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
            let names = cells.last().unwrap().split('`').skip(1).step_by(2).map(str::to_owned).collect();
            (cells[0].trim().to_owned(), names)
        })
        .collect()
}

#[test]
fn every_test_that_the_table_of_faults_names_exists() {
    let rows = fault_rows();
    assert!(rows.len() >= 67, "the table of faults has only {} rows", rows.len());
    let all = text_below(&["src", "tests", "web/test"]);
    let mut missing = Vec::new();
    for (id, names) in rows {
        for name in names {
            let bare = name.rsplit("::").next().unwrap();
            if !all.contains(&format!("fn {bare}(")) && !all.contains(&format!("\"{bare}\"")) {
                missing.push(format!("{id}: no test named `{name}`"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
