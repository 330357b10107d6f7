#![allow(clippy::unwrap_used, reason = "a test may panic")]

//! Ranks as processes, one of which dies. Each test is also the program of its ranks: it starts itself.

use std::{
    env, io,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use ff2_collectives::Communicator;

const RANKS: usize = 4;
const READY: &str = "ready";

struct Rank {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Drop for Rank {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Rank {
    fn start(test: &str, rank: usize, port: u16, folder: &std::path::Path) -> io::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args([test, "--exact", "--nocapture"])
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", RANKS.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .env("FF2_CHECKPOINT", folder)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().unwrap());
        Ok(Self { child, output })
    }

    fn wait_until_ready(&mut self) {
        let mut line = String::new();
        while !line.contains(READY) {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the rank ended early");
        }
    }

    /// What it says until its end.
    fn last_words(&mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        text
    }
}

/// Sums without end; says what ended it.
fn rank() {
    let all = Communicator::from_env().unwrap();
    all.barrier().wait().unwrap();
    println!("{READY}");
    let mut numbers = vec![0.0; 100_000];
    let error = loop {
        match all.all_reduce(numbers).wait() {
            Ok(sum) => numbers = sum,
            Err(error) => break error,
        }
    };
    println!("{error}");
}

/// Starts ranks of the test, ends one of them by `signal`, and asserts that the others say so in time.
fn end_one(test: &str, signal: &str, most: Duration) {
    if env::var_os("RANK").is_some() {
        return rank();
    }
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank| Rank::start(test, rank, port, folder.path()).unwrap();
    let mut ranks: Vec<Rank> = (0..RANKS).map(start).collect();
    ranks.iter_mut().for_each(Rank::wait_until_ready);
    let gone = ranks.pop().unwrap();
    let begun = Instant::now();
    let killed = Command::new("kill").args([signal, &gone.child.id().to_string()]).status();
    assert!(killed.unwrap().success());
    for (number, rank) in ranks.iter_mut().enumerate() {
        let words = rank.last_words();
        assert!(words.contains("rank 3 failed"), "rank {number}: {words}");
    }
    assert!(begun.elapsed() < most, "after {:?}", begun.elapsed());
}

#[test]
fn a_killed_process_ends_all_at_once() {
    end_one("a_killed_process_ends_all_at_once", "-KILL", Duration::from_secs(4));
}

#[test]
fn a_process_that_stands_still_ends_all_within_seconds() {
    let test = "a_process_that_stands_still_ends_all_within_seconds";
    end_one(test, "-STOP", Duration::from_secs(15));
}
