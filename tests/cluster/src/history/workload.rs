//! Operations on several mounts at the same time, remembered with their times.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, UNIX_EPOCH},
};

use super::{
    Operation, check,
    contents::{self, Register},
    names::{self, TwoNames},
};

/// Pairs of names (every other one with renames, the rest with links), files with contents, and as many
/// whose time of change is the value. Few, so that clients meet.
const PAIRS: usize = 4;
const FILES: usize = 2;
/// Bytes of a value in a file: its digits, filled up. A small file, which the namespace holds.
const VALUE_BYTES: usize = 100;
/// Between two operations of a client: what matters is how they meet, not how many they are.
const PAUSE: Duration = Duration::from_millis(4);

type NameHistory = Vec<Operation<names::Action, names::Outcome>>;
type ContentHistory = Vec<Operation<contents::Action, contents::Outcome>>;

/// What all clients did, by object.
#[derive(Debug)]
pub struct Histories {
    names: Vec<NameHistory>,
    contents: Vec<ContentHistory>,
}

/// Lets clients work in this folder of each mount until `is_over`: on each mount two on names, and one on
/// contents (within one mount a write shows before its close).
pub fn run(folders: &[PathBuf], is_over: &AtomicBool) -> io::Result<Histories> {
    for file in 0..FILES {
        fs::write(content_path(&folders[0], file), value(0))?;
        let timed = content_path(&folders[0], FILES + file);
        fs::write(&timed, "")?;
        set_time(&timed, 0)?;
    }
    let clock = Instant::now();
    let mut histories =
        Histories { names: vec![Vec::new(); PAIRS], contents: vec![Vec::new(); 2 * FILES] };
    thread::scope(|scope| {
        let (mut of_names, mut of_contents) = (Vec::new(), Vec::new());
        for (mount, folder) in folders.iter().enumerate() {
            for second in 0..2 {
                let client = Client { number: 3 * mount + second, folder, clock, is_over };
                of_names.push(scope.spawn(move || client.change_names()));
            }
            let client = Client { number: 3 * mount + 2, folder, clock, is_over };
            of_contents.push(scope.spawn(move || client.change_contents()));
        }
        for client in of_names {
            for (pair, operation) in client.join().expect("a client does not panic") {
                histories.names[pair].push(operation);
            }
        }
        for client in of_contents {
            for (file, operation) in client.join().expect("a client does not panic")? {
                histories.contents[file].push(operation);
            }
        }
        Ok(histories)
    })
}

impl Histories {
    /// How many operations there are.
    pub fn count(&self) -> usize {
        let names = self.names.iter().map(Vec::len);
        names.chain(self.contents.iter().map(Vec::len)).sum()
    }

    /// Refuses what no order explains: with the operations around it.
    pub fn check(&self) -> Result<(), String> {
        for (pair, history) in self.names.iter().enumerate() {
            let refused = |refusal| explain(&format!("pair {pair}"), history, refusal);
            check::<TwoNames>(history).map_err(refused)?;
        }
        for (file, history) in self.contents.iter().enumerate() {
            let refused = |refusal| explain(&format!("file {file}"), history, refusal);
            check::<Register>(history).map_err(refused)?;
        }
        Ok(())
    }
}

fn explain<A: std::fmt::Debug, O: std::fmt::Debug>(
    object: &str,
    history: &[Operation<A, O>],
    refusal: super::Refusal,
) -> String {
    let at = match refusal {
        super::Refusal::NotLinearizable { operation, .. }
        | super::Refusal::TooWide { operation } => operation,
    };
    let end = history[at].returned.as_ref().map_or(u64::MAX, |(end, _)| *end);
    let mut before: Vec<_> = history.iter().filter(|other| other.called <= end).collect();
    before.sort_by_key(|operation| operation.called);
    let around = before.iter().rev().take(25).rev();
    let lines: Vec<String> = around.map(|operation| format!("  {operation:?}")).collect();
    format!("{object}: {refusal:?}, at {:?}; before it:\n{}", history[at], lines.join("\n"))
}

#[derive(Clone, Copy)]
struct Client<'a> {
    number: usize,
    folder: &'a Path,
    clock: Instant,
    is_over: &'a AtomicBool,
}

impl Client<'_> {
    fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).expect("a test is over in 584 years")
    }

    /// Numbers the rounds of this client, unlike those of all others.
    fn rounds(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(self.number as u64 + 1) | 1;
        let own = 1 + self.number as u64 * 1_000_000;
        (own..).map_while(move |round| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            thread::sleep(PAUSE);
            (!self.is_over.load(Ordering::Relaxed)).then_some((round, random))
        })
    }

    fn change_names(&self) -> Vec<(usize, Operation<names::Action, names::Outcome>)> {
        let mut done = Vec::new();
        for (round, random) in self.rounds() {
            let (pair, name) = ((random >> 8) as usize % PAIRS, (random >> 16) as usize % 2);
            let action = match random % 8 {
                0 | 1 => names::Action::Create(name, round),
                2 => names::Action::Unlink(name),
                3 | 4 if pair % 2 == 0 => names::Action::RenameTo(name),
                3 | 4 => names::Action::LinkTo(name),
                _ => names::Action::Stat(name),
            };
            let called = self.now();
            let outcome = self.name_action(pair, &action);
            let returned = outcome.map(|outcome| (self.now(), outcome));
            done.push((pair, Operation { client: self.number, called, action, returned }));
        }
        done
    }

    /// `None`: whether it was done is not known.
    fn name_action(&self, pair: usize, action: &names::Action) -> Option<names::Outcome> {
        use names::{Action, Outcome};
        let path = |name: usize| self.folder.join(format!("{}-{pair}", ["a", "b"][name]));
        let done = |outcome: io::Result<()>| outcome.map(|()| Outcome::Done);
        let outcome = match action {
            Action::Create(name, _) => OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(path(*name))
                .and_then(|file| file.metadata())
                .map(|found| Outcome::Created(found.ino())),
            Action::Unlink(name) => done(fs::remove_file(path(*name))),
            Action::RenameTo(name) => done(fs::rename(path(1 - name), path(*name))),
            Action::LinkTo(name) => done(fs::hard_link(path(1 - name), path(*name))),
            Action::Stat(name) => {
                fs::metadata(path(*name)).map(|found| Outcome::Found(found.ino()))
            }
        };
        match outcome {
            Ok(outcome) => Some(outcome),
            Err(error) if error.kind() == ErrorKind::NotFound => Some(Outcome::NotFound),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Some(Outcome::Exists),
            Err(error) => {
                eprintln!("{action:?} of pair {pair}: {error}");
                None
            }
        }
    }

    fn change_contents(
        &self,
    ) -> io::Result<Vec<(usize, Operation<contents::Action, contents::Outcome>)>> {
        let mut done = Vec::new();
        for (round, random) in self.rounds() {
            let file = (random >> 8) as usize % (2 * FILES);
            let path = content_path(self.folder, file);
            let action = match random % 3 {
                0 => contents::Action::Write(round),
                _ => contents::Action::Read,
            };
            let called = self.now();
            let outcome = match action {
                contents::Action::Write(value) if file < FILES => {
                    write(&path, value).map(|()| None)
                }
                contents::Action::Write(value) => set_time(&path, value).map(|()| None),
                contents::Action::Read if file < FILES => read(&path).map(Some),
                contents::Action::Read => time(&path).map(Some),
            };
            let returned = match outcome {
                Ok(outcome) => Some((self.now(), outcome)),
                Err(error) if error.kind() == ErrorKind::InvalidData => return Err(error),
                Err(error) => {
                    eprintln!("{action:?} of file {file}: {error}");
                    None
                }
            };
            done.push((file, Operation { client: self.number, called, action, returned }));
        }
        Ok(done)
    }
}

fn content_path(folder: &Path, file: usize) -> PathBuf {
    folder.join(format!("file-{file}"))
}

fn set_time(path: &Path, seconds: u64) -> io::Result<()> {
    File::open(path)?.set_modified(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn time(path: &Path) -> io::Result<u64> {
    let since = fs::metadata(path)?.modified()?.duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).map_err(io::Error::other)
}

fn value(value: u64) -> Vec<u8> {
    format!("{value:0width$}", width = VALUE_BYTES).into_bytes()
}

/// All bytes in place, so that there is no moment without a value.
fn write(path: &Path, new: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&value(new), 0)?;
    // What close(2) does, with its answer.
    file.sync_data()
}

fn read(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let whole = (text.len() == VALUE_BYTES).then(|| text.parse().ok()).flatten();
    let torn = || io::Error::new(ErrorKind::InvalidData, format!("a torn value: {text:?}"));
    whole.ok_or_else(torn)
}
