//! Where and as whom a rank meets the others, by the environment that the scheduler gives it (docs/JOBS.md).

use std::{path::PathBuf, time::Duration};

use crate::{
    CollectiveError,
    limits::{MEET_TIMEOUT, PATIENCE, RANKS_MAX},
    network::Network,
};

/// What a rank needs to know to meet the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    pub rank: usize,
    pub world: usize,
    /// `host:port`, where rank 0 serves.
    pub master: String,
    /// Names the attempt of the job: ranks of another are refused.
    pub job: String,
    /// The secret that lets ranks in. Rank 0 makes the file, the others read it.
    pub key: PathBuf,
    /// How long ranks wait for each other at the beginning.
    pub timeout: Duration,
    /// How long an operation waits for a rank that lives but does not take part.
    pub patience: Duration,
    /// By what ranks reach each other.
    pub network: Network,
}

impl Rendezvous {
    /// By `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`, `FF2_JOB_ID`, `FF2_ATTEMPT`, and for the key
    /// `FF2_RANK_KEY` or else a file of the attempt in `FF2_CHECKPOINT`; by [`Network`]'s variables for the network.
    /// None of a process that is alone: without `WORLD_SIZE`, or if that is 1.
    ///
    /// # Errors
    /// The variable that is missing or wrong, and what was expected.
    pub fn from_env() -> Result<Option<Self>, CollectiveError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(
        get: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Option<Self>, CollectiveError> {
        let need = |name: &'static str, expected: &str| {
            get(name).filter(|value| !value.is_empty()).ok_or_else(|| {
                let (found, expected) = ("nothing".into(), expected.into());
                CollectiveError::Environment { name, found, expected }
            })
        };
        let number = |name: &'static str, least: usize, most: usize| {
            let expected = format!("a number from {least} to {most}");
            let found = need(name, &expected)?;
            let parsed = found.parse().ok().filter(|n| (least..=most).contains(n));
            parsed.ok_or(CollectiveError::Environment { name, found, expected })
        };
        if get("WORLD_SIZE").is_none() {
            return Ok(None);
        }
        let world = number("WORLD_SIZE", 1, RANKS_MAX)?;
        if world == 1 {
            return Ok(None);
        }
        let rank = number("RANK", 0, world - 1)?;
        let host = need("MASTER_ADDR", "the host of rank 0")?;
        let port = number("MASTER_PORT", 1, usize::from(u16::MAX))?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let attempt = get("FF2_ATTEMPT").unwrap_or_else(|| "1".into());
        let id = get("FF2_JOB_ID").unwrap_or_else(|| "0".into());
        let key = match get("FF2_RANK_KEY") {
            Some(path) => path.into(),
            None => {
                let folder = need("FF2_CHECKPOINT", "a folder that all ranks of the job see")?;
                PathBuf::from(folder).join(format!(".ranks-{attempt}.key"))
            }
        };
        Ok(Some(Self {
            rank,
            world,
            master: format!("{host}:{port}"),
            job: format!("job {id} attempt {attempt}"),
            key,
            timeout: MEET_TIMEOUT,
            patience: PATIENCE,
            network: Network::from_variables(get)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn read(changes: &[(&'static str, &str)]) -> Result<Option<Rendezvous>, CollectiveError> {
        let usual = [
            ("RANK", "1"),
            ("WORLD_SIZE", "4"),
            ("MASTER_ADDR", "10.0.0.1"),
            ("MASTER_PORT", "29500"),
            ("FF2_JOB_ID", "7"),
            ("FF2_ATTEMPT", "2"),
            ("FF2_CHECKPOINT", "/c"),
        ];
        Rendezvous::from_variables(|name| {
            let found = changes.iter().chain(&usual).find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_schedulers_environment_says_all() {
        let found = read(&[]).unwrap().unwrap();
        assert_eq!((found.rank, found.world, found.master.as_str()), (1, 4, "10.0.0.1:29500"));
        assert_eq!(found.key, PathBuf::from("/c/.ranks-2.key"));
        assert_eq!(found.job, "job 7 attempt 2");
        assert_eq!(read(&[("MASTER_ADDR", "::1")]).unwrap().unwrap().master, "[::1]:29500");
        assert_eq!(read(&[("FF2_RANK_KEY", "/k")]).unwrap().unwrap().key, PathBuf::from("/k"));
    }

    #[test]
    fn who_is_alone_meets_nobody() {
        assert_eq!(read(&[("WORLD_SIZE", "1")]).unwrap(), None);
        assert_eq!(Rendezvous::from_variables(|_| None).unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (change, expected) in [
            (("RANK", "4"), "RANK: found 4, expected a number from 0 to 3"),
            (("WORLD_SIZE", "x"), "WORLD_SIZE: found x, expected a number from 1 to 4096"),
            (("MASTER_PORT", "0"), "MASTER_PORT: found 0"),
            (("MASTER_ADDR", ""), "MASTER_ADDR: found nothing, expected the host of rank 0"),
            (("FF2_CHECKPOINT", ""), "FF2_CHECKPOINT: found nothing"),
            (("FF2_TRANSPORT", "ib"), "FF2_TRANSPORT: found ib, expected tcp, rdma or auto"),
        ] {
            let error = read(&[change]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
