//! From a TOML file to a checked, typed configuration, and back.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    suggest::nearest,
    validate::{Problems, Validate},
};

/// Why a configuration cannot be used, in words that name the place and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("cannot read {}: {source}; `ff2ctl up` writes one, or pass --config FILE", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}:{column}: {message}", path.display())]
    Parse { path: PathBuf, line: usize, column: usize, message: String },
    #[error("{} cannot be used:\n{problems}", path.display())]
    Invalid { path: PathBuf, problems: Problems },
}

/// Reads, parses and checks `path`.
pub fn load<T: DeserializeOwned + Validate>(path: &Path) -> Result<T, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

/// As [`load`], of a text that was read already; `path` is for messages.
pub fn parse<T: DeserializeOwned + Validate>(path: &Path, text: &str) -> Result<T, ConfigError> {
    let config: T = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let (line, column) = position(text, at);
        ConfigError::Parse {
            path: path.to_owned(),
            line,
            column,
            message: explain(error.message()),
        }
    })?;
    let mut problems = Problems::default();
    config.validate(&mut problems);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError::Invalid { path: path.to_owned(), problems })
    }
}

/// The effective configuration, defaults filled in, as [`load`] reads it.
pub fn to_toml<T: Serialize>(config: &T) -> String {
    toml::to_string_pretty(config).expect("config structs have string keys and no nulls in lists")
}

/// Line and column, from 1, of a byte offset.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// serde says ``unknown field `a`, expected one of `b`, `c` ``; people want the one they meant.
fn explain(message: &str) -> String {
    let message = message.trim_end();
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") {
        return message.to_owned();
    }
    let unknown = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    let mut text = format!("unknown key `{unknown}`");
    if let Some(meant) = nearest(unknown, &known) {
        let _ = write!(text, "; did you mean `{meant}`?");
    } else {
        let _ = write!(text, "; the keys here are: {}", known.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MetadConfig, MountConfig, StoragedConfig};

    const GOOD: &str = r#"
node = 1
cluster_id = "c"
listen = "127.0.0.1:7000"
admin_listen = "127.0.0.1:7001"
http_listen = "127.0.0.1:7002"
data_dir = "/var/lib/ff2/metad"
[security]
cluster_key_file = "/etc/ff2/cluster.key"
[[peers]]
node = 1
address = "127.0.0.1:7000"
"#;

    fn refusal(text: &str) -> String {
        parse::<MetadConfig>(Path::new("metad.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn a_good_file_is_taken_and_survives_printing() {
        let config: MetadConfig = parse(Path::new("metad.toml"), GOOD).unwrap();
        let printed = to_toml(&config);
        assert!(printed.contains("lease_ms = 3000"), "defaults are printed too: {printed}");
        let again: MetadConfig = parse(Path::new("metad.toml"), &printed).unwrap();
        assert_eq!(to_toml(&again), printed);
    }

    #[test]
    fn a_misspelt_key_is_refused_with_its_place_and_the_one_that_was_meant() {
        let text = GOOD.replace("data_dir", "datadir");
        assert_eq!(
            refusal(&text),
            "metad.toml:7:1: unknown key `datadir`; did you mean `data_dir`?"
        );
        let nested = format!("{GOOD}[lease]\nleese_ms = 3\n");
        assert_eq!(
            refusal(&nested),
            "metad.toml:14:1: unknown key `leese_ms`; did you mean `lease_ms`?"
        );
        let strange = format!("{GOOD}[log]\ncolour = 3\n");
        assert!(
            refusal(&strange).ends_with("unknown key `colour`; the keys here are: filter, json")
        );
    }

    #[test]
    fn wrong_types_missing_keys_and_broken_files_name_the_place() {
        assert!(
            refusal(&GOOD.replace("node = 1\nc", "node = \"x\"\nc")).contains("metad.toml:2:8")
        );
        assert!(
            refusal(&GOOD.replace("cluster_id = \"c\"\n", ""))
                .contains("missing field `cluster_id`")
        );
        assert!(refusal("node = [").starts_with("metad.toml:1:"));
        let error = load::<MountConfig>(Path::new("/nonexistent/mount.toml")).unwrap_err();
        assert!(error.to_string().contains("--config FILE"));
    }

    #[test]
    fn all_problems_are_listed_at_once() {
        let text = GOOD.replace("127.0.0.1:7001", "127.0.0.1").replace("/etc/ff2/cluster.key", "");
        let refusal = refusal(&text);
        assert!(refusal.contains("admin_listen"), "{refusal}");
        assert!(refusal.contains("cluster_key_file"), "{refusal}");
    }

    const STORAGED: &str = r#"
cluster_id = "c"
listen = "127.0.0.1:7000"
http_listen = "127.0.0.1:7002"
data_dir = "/var/lib/ff2/storaged"
metads = ["127.0.0.1:7100"]
security = { cluster_key_file = "/etc/ff2/cluster.key" }
disks = [{ path = "/disk", size_bytes = 1073741824 }]
storage = { disk_depth = 64 }
log = { filter = "info,ff2_storaged=debug" }
"#;
    const MOUNT: &str = r#"
cluster_id = "c"
metads = ["127.0.0.1:7100", "127.0.0.1:7200"]
token_file = "/etc/ff2/token"
mount_point = "/mnt"
data_dir = "/var/lib/ff2/mount"
subdir = "/x"
io_uring = "auto"
"#;

    fn survives<T: Serialize + DeserializeOwned + Validate>(text: &str) {
        let path = Path::new("some.toml");
        match parse::<T>(path, text) {
            Ok(config) => {
                let printed = to_toml(&config);
                let again: T = parse(path, &printed).expect("what was printed");
                assert_eq!(to_toml(&again), printed);
            }
            Err(refusal) => assert!(refusal.to_string().starts_with("some.toml")),
        }
    }

    #[test]
    fn damaged_configurations() {
        assert!(parse::<StoragedConfig>(Path::new("some.toml"), STORAGED).is_ok());
        assert!(parse::<MountConfig>(Path::new("some.toml"), MOUNT).is_ok());
        let deep = [b"peers = ".as_slice(), &[b'['; 300]].concat();
        let seeds = [GOOD, STORAGED, MOUNT].map(|text| text.as_bytes().to_vec());
        ff2_fuzz::target!(2_000, [&seeds[..], &[deep]].concat(), |bytes| {
            let text = String::from_utf8_lossy(bytes);
            survives::<MetadConfig>(&text);
            survives::<StoragedConfig>(&text);
            survives::<MountConfig>(&text);
        });
    }
}
