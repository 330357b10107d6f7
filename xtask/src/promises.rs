//! Each promise of `docs/SEMANTICS.md` names what holds it, and what it names is there and is run.
//!
//! The last cell of a row has parts between semicolons. `` `path.rs`: `one`, `other` `` names tests of a
//! file: functions with a test attribute, or checks that such a function lists or calls. `` sim: `check` ``
//! names what the simulator judges each run by.

use std::{fs, path::Path};

use anyhow::{Context, Result};

const PAGE: &str = "docs/SEMANTICS.md";
/// The simulator's checks, and what puts them to use.
const SIMULATOR: &str = "tests/sim/src";

pub(crate) fn run(root: &Path, problems: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root.join(PAGE)).with_context(|| format!("read {PAGE}"))?;
    let simulator: String = crate::tidy::sources(&root.join(SIMULATOR), "rs")?
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    let rows = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--"));
    for row in rows.filter(|row| !row.contains("| held by |")) {
        let held_by = row.trim_end().trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let read = |file: &str| fs::read_to_string(root.join(file)).ok();
        let (held, faults) = holds(held_by, &simulator, read);
        problems.extend(faults.into_iter().map(|fault| format!("{PAGE}: {fault}")));
        if !held {
            problems.push(format!("{PAGE}: no test holds:{}", row.trim_start_matches('|')));
        }
    }
    Ok(())
}

/// Whether the cell names anything that holds the promise, and what it names in vain.
fn holds(
    held_by: &str,
    simulator: &str,
    read: impl Fn(&str) -> Option<String>,
) -> (bool, Vec<String>) {
    let (mut held, mut faults) = (false, Vec::new());
    for part in held_by.split(';').map(str::trim) {
        let mut names = part.split('`').skip(1).step_by(2);
        if part.starts_with("sim") {
            for name in names {
                match is_used(simulator, name) {
                    true => held = true,
                    false => faults.push(format!("the simulator checks no {name}")),
                }
            }
            continue;
        }
        let Some(file) = names.next() else { continue };
        let Some(source) = read(file) else {
            faults.push(format!("there is no {file}"));
            continue;
        };
        for name in names {
            match is_tested(&source, name) {
                true => held = true,
                false => faults.push(format!("{file} has no test {name}")),
            }
        }
    }
    (held, faults)
}

/// Whether a function is there, and something calls it.
fn is_used(source: &str, name: &str) -> bool {
    let defined = source.matches(&format!("fn {name}(")).count();
    defined > 0 && source.matches(&format!("{name}(")).count() > defined
}

/// Whether a function is a test, or a test of the same file names it.
fn is_tested(source: &str, name: &str) -> bool {
    source.contains(&format!("fn {name}(")) && tests(source).iter().any(|test| has_word(test, name))
}

/// The text of each function that a test attribute stands before, from its name to its end.
fn tests(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let attribute = line.trim_start();
        let is_test = ["#[test]", "#[tokio::test]", "#[tokio::test("];
        if !is_test.iter().any(|start| attribute.starts_with(start)) {
            continue;
        }
        // `rustfmt` puts the closing brace below the attribute.
        let end = " ".repeat(line.len() - attribute.len()) + "}";
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
        found.push(body.join("\n"));
    }
    found
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "#[test]\nfn all() {\n    check(listed);\n}\n\nfn listed() {}\n\nfn idle() {\n    \
                          listed();\n}\n\nmod inner {\n    #[tokio::test(flavor = \"x\")]\n    \
                          async fn waits() {\n        one();\n    }\n\n    fn lonely() {}\n}\n";
    const SIMULATED: &str = "fn judge() { equal(); }\nfn equal() {}\nfn unused() {}\n";

    fn cell(text: &str) -> (bool, usize) {
        let read = |file: &str| (file == "a.rs").then(|| SOURCE.to_owned());
        let (held, faults) = holds(text, SIMULATED, read);
        (held, faults.len())
    }

    #[test]
    fn what_is_named_must_be_a_test() {
        assert_eq!(cell(" `a.rs`: `all`, `listed`, `waits` "), (true, 0));
        assert_eq!(cell(" `a.rs`: `idle` "), (false, 1), "nothing runs it");
        assert_eq!(cell(" `a.rs`: `lonely` "), (false, 1));
        assert_eq!(cell(" `a.rs`: `liste` "), (false, 1));
        assert_eq!(cell(" `b.rs`: `all` "), (false, 1), "no such file");
        assert_eq!(cell(" `a.rs` "), (false, 0));
    }

    #[test]
    fn the_simulator_is_held_to_its_checks() {
        assert_eq!(cell(" sim: `equal`; `a.rs`: `all` "), (true, 0));
        assert_eq!(cell(" sim (each history is checked) "), (false, 0));
        assert_eq!(cell(" sim: `unused` "), (false, 1), "nothing calls it");
        assert_eq!(cell(" sim: `missing` "), (false, 1));
    }
}
