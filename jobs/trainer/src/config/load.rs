//! From the file and the command line to a checked configuration.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::RunConfig;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{}: cannot read it; expected a TOML file, see docs/TRAINING.md", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: no TOML", path.display())]
    Toml { path: PathBuf, source: toml::de::Error },
    #[error("--set {0}: expected KEY=VALUE, for example optimizer.learning_rate=3e-4")]
    Set(String),
    #[error("{place}: unknown key `{key}`; {hint}")]
    Unknown { place: String, key: String, hint: String },
    #[error("{place}: {detail}")]
    Kind { place: String, detail: String },
    #[error("{place}: {key} is {found}, expected {expected}")]
    Value { place: String, key: &'static str, found: String, expected: &'static str },
}

/// Reads `path`, puts `KEY=VALUE` of each of `sets` over it, and checks all of it.
///
/// # Errors
/// A file that is none, keys that nobody knows, values out of range.
pub(crate) fn load(path: &Path, sets: &[String]) -> Result<RunConfig, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let mut table: Table =
        text.parse().map_err(|source| ConfigError::Toml { path: path.to_owned(), source })?;
    for set in sets {
        put(&mut table, set).ok_or_else(|| ConfigError::Set(set.clone()))?;
    }
    let place = path.display().to_string();
    let known = serde_json::to_value(RunConfig::default()).expect("plain fields");
    check_keys(&place, "", &table, &known)?;
    let config: RunConfig = table.try_into().map_err(|error: toml::de::Error| {
        ConfigError::Kind { place: place.clone(), detail: error.to_string().trim().to_owned() }
    })?;
    check_values(&place, &config)?;
    Ok(config)
}

/// A value that is no TOML is a text, so that paths need no quotes.
fn put(table: &mut Table, set: &str) -> Option<()> {
    let (key, value) = set.split_once('=')?;
    let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().filter(|last| !last.is_empty())?;
    let mut into = table;
    for part in parts {
        let entry = into.entry(part).or_insert_with(|| Value::Table(Table::new()));
        into = entry.as_table_mut()?;
    }
    into.insert(last.to_owned(), value);
    Some(())
}

/// `known` has the same tables; one that is empty takes any keys.
fn check_keys(
    place: &str,
    prefix: &str,
    table: &Table,
    known: &serde_json::Value,
) -> Result<(), ConfigError> {
    let Some(known) = known.as_object().filter(|known| !known.is_empty()) else { return Ok(()) };
    for (key, value) in table {
        let Some(inner) = known.get(key) else {
            let distance = |name: &&String| strsim::damerau_levenshtein(name, key);
            let nearest = known.keys().min_by_key(distance);
            let hint = match nearest.filter(|name| distance(name) <= (key.len() / 3).max(1)) {
                Some(name) => format!("did you mean `{prefix}{name}`?"),
                None => {
                    let mut names: Vec<_> = known.keys().map(String::as_str).collect();
                    names.sort_unstable();
                    format!("the keys here are {}", names.join(", "))
                }
            };
            let (place, key) = (place.to_owned(), format!("{prefix}{key}"));
            return Err(ConfigError::Unknown { place, key, hint });
        };
        if let Some(table) = value.as_table() {
            check_keys(place, &format!("{prefix}{key}."), table, inner)?;
        }
    }
    Ok(())
}

fn check_values(place: &str, c: &RunConfig) -> Result<(), ConfigError> {
    let positive = |x: f64| x.is_finite() && x > 0.0;
    let share = |x: f64| (0.0..=1.0).contains(&x);
    let beta = |x: f32| (0.0..1.0).contains(&x);
    let (o, s, d) = (&c.optimizer, &c.schedule, &c.data);
    let path = |path: &Path| format!("{path:?}");
    let rules: [(&'static str, bool, String, &'static str); 17] = [
        ("out", c.out != Path::new(""), path(&c.out), "a folder"),
        ("steps", (1..=i32::MAX as u64).contains(&c.steps), c.steps.to_string(), "1 to 2^31 - 1"),
        ("data.folder", d.folder != Path::new(""), path(&d.folder), "a dataset's folder"),
        ("data.sequence", d.sequence >= 2, d.sequence.to_string(), "at least 2 tokens"),
        ("data.batch", d.batch >= 1, d.batch.to_string(), "at least 1 sequence"),
        ("data.accumulate", d.accumulate >= 1, d.accumulate.to_string(), "at least 1 batch"),
        ("model", !c.model.is_empty(), "empty".into(), "`from`, or the keys of a config.json"),
        (
            "optimizer.learning_rate",
            positive(o.learning_rate),
            o.learning_rate.to_string(),
            "more than 0",
        ),
        ("optimizer.beta1", beta(o.beta1), o.beta1.to_string(), "0 to less than 1"),
        ("optimizer.beta2", beta(o.beta2), o.beta2.to_string(), "0 to less than 1"),
        ("optimizer.eps", positive(o.eps.into()), o.eps.to_string(), "more than 0"),
        ("optimizer.weight_decay", o.weight_decay >= 0.0, o.weight_decay.to_string(), "0 or more"),
        ("optimizer.clip", o.clip >= 0.0, o.clip.to_string(), "0 or more"),
        ("schedule.final_share", share(s.final_share), s.final_share.to_string(), "0 to 1"),
        ("schedule.decay_share", share(s.decay_share), s.decay_share.to_string(), "0 to 1"),
        ("checkpoint.keep", c.checkpoint.keep >= 1, c.checkpoint.keep.to_string(), "at least 1"),
        ("show.every", c.show.every >= 1, c.show.every.to_string(), "at least 1 step"),
    ];
    match rules.into_iter().find(|(_, holds, ..)| !holds) {
        None => Ok(()),
        Some((key, _, found, expected)) => {
            Err(ConfigError::Value { place: place.to_owned(), key, found, expected })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::error::Error as _;

    use super::*;

    const GOOD: &str = "out = 'o'\nsteps = 9\n[data]\nfolder = 'd'\n[model]\nhidden_size = 8\n\
        [optimizer]\nbeta1 = 0.8\n";

    fn load_text(text: &str, sets: &[&str]) -> Result<RunConfig, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        fs::write(&path, text).unwrap();
        load(&path, &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_comes_over_the_file() {
        let config = load_text(GOOD, &[]).unwrap();
        assert_eq!((config.steps, config.optimizer.beta1, config.data.batch), (9, 0.8, 8));
        let sets = ["steps=12", "data.folder=/a b", "schedule.kind=wsd", "model.vocab_size = 5"];
        let config = load_text(GOOD, &sets).unwrap();
        assert_eq!((config.steps, config.data.folder), (12, "/a b".into()));
        assert_eq!(config.schedule.kind, crate::config::ScheduleKind::Wsd);
        assert_eq!(config.model["vocab_size"].as_integer(), Some(5));
    }

    #[test]
    fn mistakes_are_named() {
        let refused = |text: &str, sets: &[&str], expected: &str| {
            let error = load_text(text, sets).unwrap_err();
            let source = error.source().map_or(String::new(), |source| source.to_string());
            assert!(format!("{error}: {source}").contains(expected), "{error}: {source}");
        };
        refused("out = ", &[], "run.toml: no TOML");
        refused(GOOD, &["optimizer.learning_rat=1"], "did you mean `optimizer.learning_rate`?");
        refused(GOOD, &["stps=1"], "unknown key `stps`; did you mean `steps`?");
        refused(GOOD, &["data.colour=1"], "the keys here are accumulate, batch, folder");
        refused(GOOD, &["steps"], "--set steps: expected KEY=VALUE");
        refused(GOOD, &["steps.x=1"], "--set steps.x=1: expected KEY=VALUE");
        refused(GOOD, &["steps='many'"], "invalid type: string \"many\"");
        refused(GOOD, &["steps=0"], "steps is 0, expected 1 to 2^31");
        refused(GOOD, &["data.sequence=1"], "data.sequence is 1, expected at least 2 tokens");
        refused(
            GOOD,
            &["optimizer.learning_rate=nan"],
            "learning_rate is NaN, expected more than 0",
        );
        refused("steps = 1", &[], "out is \"\", expected a folder");
    }
}
