//! The weather over all connections of a run: what each frame goes through.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ff2_fabric::mem::{Fate, Line, Way, Weather};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Process, chronicle::Chronicle};
use crate::rng::Rng;

/// How long a silence ends before the frames of it arrive, at most.
const AFTERMATH_MS: u64 = 5;

/// Knows every connection, and who may not speak to whom.
#[derive(Debug)]
pub(super) struct Sky {
    chronicle: Arc<Chronicle>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    taste: Taste,
    /// By their number, which grows; with their number within this run.
    lines: BTreeMap<u64, (u64, Line)>,
    lines_made: u64,
    silences: BTreeMap<Process, Silence>,
    /// From the first to the second nothing passes.
    parted: BTreeMap<(Process, Process), Silence>,
}

/// How bad it is. Each seed has its own.
#[derive(Clone, Copy, Debug)]
struct Taste {
    slow_percent: u64,
    /// Of ten thousand frames.
    cut: u64,
    torn: u64,
    held: u64,
}

/// For a while nothing gets through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    pub(super) until: Instant,
    pub(super) after: After,
}

/// What becomes of what was sent meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It arrives when the silence is over.
    Late,
    /// It is gone, and its connection with it, though nobody was told.
    Held,
}

impl Sky {
    pub(super) fn new(seed: u64, chronicle: Arc<Chronicle>) -> Arc<Self> {
        let mut rng = Rng::new(seed, "sky");
        let taste = Taste {
            slow_percent: rng.within(0..8),
            cut: rng.within(0..40),
            torn: rng.within(0..150),
            held: rng.within(0..6),
        };
        let state = State {
            rng,
            taste,
            lines: BTreeMap::new(),
            lines_made: 0,
            silences: BTreeMap::new(),
            parted: BTreeMap::new(),
        };
        Arc::new(Self { chronicle, state: Mutex::new(state) })
    }

    /// Breaks every connection of a process; returns how many.
    pub(super) fn cut_lines_of(&self, process: Process) -> usize {
        self.cut_lines(|line| server_of(line) == process || client_of(line) == process)
    }

    /// Breaks some connections, each with this chance.
    pub(super) fn cut_some_lines(&self, percent: u64) -> usize {
        let mut rng = self.state.lock().rng.clone();
        let cut = self.cut_lines(|_| rng.chance(percent));
        self.state.lock().rng = rng;
        cut
    }

    fn cut_lines(&self, mut which: impl FnMut(&Line) -> bool) -> usize {
        let mut state = self.state.lock();
        state.lines.retain(|_, (_, line)| !line.is_cut());
        let lines: Vec<Line> = state.lines.values().map(|(_, line)| line.clone()).collect();
        drop(state);
        let cut: Vec<Line> = lines.into_iter().filter(|line| which(line)).collect();
        cut.iter().for_each(Line::cut);
        cut.len()
    }

    /// Nothing of this process is heard, and it hears nothing.
    pub(super) fn silence(&self, process: Process, silence: Silence) {
        self.state.lock().silences.insert(process, silence);
    }

    /// Nothing passes from one to the other.
    pub(super) fn part(&self, from: Process, to: Process, silence: Silence) {
        self.state.lock().parted.insert((from, to), silence);
    }

    /// From now on everything passes, fast.
    pub(super) fn calm(&self) {
        let mut state = self.state.lock();
        state.silences.clear();
        state.parted.clear();
        state.taste = Taste { slow_percent: 0, cut: 0, torn: 0, held: 0 };
    }
}

impl State {
    fn fate(&mut self, from: Process, to: Process, bytes: usize) -> Fate {
        let now = Instant::now();
        self.silences.retain(|_, silence| silence.until > now);
        self.parted.retain(|_, silence| silence.until > now);
        let silences = [self.silences.get(&from), self.silences.get(&to)];
        let silence = silences.into_iter().chain([self.parted.get(&(from, to))]).flatten();
        if let Some(silence) = silence.max_by_key(|silence| silence.until).copied() {
            let rest = self.rng.within(0..AFTERMATH_MS);
            return match silence.after {
                After::Held => Fate::Held,
                After::Late => Fate::Arrives(silence.until - now + Duration::from_millis(rest)),
            };
        }
        let Taste { slow_percent, cut, torn, held } = self.taste;
        let draw = self.rng.within(0..10_000);
        // The end of a connection (no bytes) breaks nothing that is still whole.
        match draw {
            _ if draw < held => Fate::Held,
            _ if draw < held + cut => Fate::Cut,
            _ if draw < held + cut + torn && bytes > 512 => Fate::Torn,
            _ if self.rng.chance(slow_percent) => {
                Fate::Arrives(Duration::from_millis(self.rng.within(5..400)))
            }
            _ => Fate::Arrives(Duration::from_millis(self.rng.within(0..3))),
        }
    }
}

impl Weather for Sky {
    fn connecting(&self, line: &Line) -> Fate {
        let (server, client) = (server_of(line), client_of(line));
        let mut state = self.state.lock();
        state.lines_made += 1;
        let number = state.lines_made;
        state.lines.insert(line.number, (number, line.clone()));
        let fate = state.fate(client, server, 0);
        drop(state);
        self.chronicle
            .note("connecting", &[number, server.into(), client.into(), fate_number(fate)]);
        fate
    }

    fn frame(&self, line: &Line, way: Way, bytes: usize) -> Fate {
        let (server, client) = (server_of(line), client_of(line));
        let (from, to) = match way {
            Way::ToServer => (client, server),
            Way::ToClient => (server, client),
        };
        let mut state = self.state.lock();
        let number = state.lines.get(&line.number).map_or(0, |(number, _)| *number);
        let fate = state.fate(from, to, bytes);
        drop(state);
        self.chronicle
            .note("frame", &[number, from.into(), to.into(), bytes as u64, fate_number(fate)]);
        fate
    }
}

/// The process behind a name of this run, which ends with its number.
fn server_of(line: &Line) -> Process {
    line.server().rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn client_of(line: &Line) -> Process {
    line.client().parse().unwrap_or(0)
}

fn fate_number(fate: Fate) -> u64 {
    match fate {
        Fate::Arrives(delay) => 10 + u64::try_from(delay.as_millis()).unwrap_or(u64::MAX - 10),
        Fate::Held => 1,
        Fate::Cut => 2,
        Fate::Torn => 3,
    }
}
