//! Log lines to standard error: people's form or JSON, with one filter.

use std::io::{self, IsTerminal};

use anyhow::Context;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogConfig;

/// Overrides the configured filter, for one run.
pub const LOG_ENV: &str = "FF2_LOG";

/// Starts logging for the whole process. A second call changes nothing and is no error, so that
/// tests may run several daemons in one process.
pub fn init_tracing(config: &LogConfig) -> anyhow::Result<()> {
    let filter = std::env::var(LOG_ENV).unwrap_or_else(|_| config.filter.clone());
    let filter: EnvFilter =
        filter.parse().with_context(|| format!("parse the log filter {filter:?}"))?;
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    let outcome = if config.json {
        registry.with(lines.json().flatten_event(true)).try_init()
    } else {
        registry.with(lines).try_init()
    };
    if outcome.is_err() {
        tracing::debug!("logging runs already");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_is_harmless_and_a_bad_filter_is_told() {
        let config = LogConfig { filter: "error".into(), json: true };
        init_tracing(&config).unwrap();
        init_tracing(&LogConfig { json: false, ..config }).unwrap();
        let error = init_tracing(&LogConfig { filter: "loud=very".into(), json: false });
        assert!(format!("{:#}", error.unwrap_err()).contains("loud=very"));
    }
}
