//! Random writes, appends, cuts, holes and copies of two clients through the cores of client, namespace and
//! storage, whose bytes are those of a `Vec<u8>` after every step. Who turns to a file finds what the
//! other did reported, as callbacks see to.
#![allow(clippy::unwrap_used, reason = "a test ends where its setting cannot be made")]

mod files;
mod store;

use ff2_proto::limits::INLINE_BYTES_MAX;
use files::{CHUNK_SIZE, Cluster};
use proptest::prelude::*;

const FILES: usize = 2;
const CLIENTS: usize = 2;
/// Files grow to a few chunks.
const END_MAX: u64 = 5 * CHUNK_SIZE as u64 / 2;

#[derive(Clone, Debug)]
struct Step {
    action: u8,
    client: usize,
    file: usize,
    places: [u64; 2],
    length: u64,
    byte: u8,
    luck: bool,
}

/// Near the borders of sectors, of inline files and of chunks, and anywhere.
fn place() -> impl Strategy<Value = u64> {
    let borders = [4096, u64::from(INLINE_BYTES_MAX), CHUNK_SIZE.into(), 2 * u64::from(CHUNK_SIZE)];
    prop_oneof![
        (prop::sample::select(borders.to_vec()), 0..9_u64).prop_map(|(border, by)| border - 4 + by),
        0..u64::from(INLINE_BYTES_MAX),
        0..END_MAX,
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![1..40_u64, 1..9_000_u64, 1..150_000_u64];
    let step =
        (any::<u8>(), 0..CLIENTS, 0..FILES, [place(), place()], length, 1..=255_u8, any::<bool>());
    let step = step.prop_map(|(action, client, file, places, length, byte, luck)| Step {
        action,
        client,
        file,
        places,
        length,
        byte,
        luck,
    });
    prop::collection::vec(step, 1..40)
}

struct Pair {
    cluster: Cluster,
    inodes: Vec<u64>,
    model: Vec<Vec<u8>>,
    sessions: u64,
}

impl Pair {
    fn new() -> Self {
        let mut cluster = Cluster::new(CLIENTS as u64);
        let inodes = (0..FILES).map(|file| cluster.create(format!("f{file}"))).collect();
        Self { cluster, inodes, model: vec![Vec::new(); FILES], sessions: CLIENTS as u64 }
    }

    fn run(&mut self, step: &Step) {
        let Step { client, file, places: [at, other], length, byte, luck, .. } = *step;
        self.cluster.luck = luck;
        for turned in [file, 1 - file] {
            self.cluster.report(1 - client, self.inodes[turned]);
        }
        let inode = self.inodes[file];
        let bytes: Vec<u8> = (0..length).map(|at| byte.wrapping_add((at / 7) as u8)).collect();
        match step.action % 16 {
            0..=5 => self.write(client, file, at, &bytes),
            6 | 7 => {
                let end = self.cluster.size(client, inode);
                assert_eq!(end, self.model[file].len() as u64, "where an append goes");
                self.write(client, file, end.min(END_MAX), &bytes);
            }
            8 | 9 => {
                self.cluster.truncate(client, inode, at);
                self.model[file].resize(at as usize, 0);
            }
            10 | 11 => self.punch(client, file, at, length),
            12 | 13 => {
                // copy_file_range, also within one file.
                let from = if luck { file } else { 1 - file };
                let copied = self.cluster.read(client, self.inodes[from], at, length);
                self.write(client, file, other, &copied);
            }
            14 => self.cluster.report(client, inode),
            _ => {
                // What it kept of small files dies with it; bytes on the chains do not.
                self.cluster.report(client, self.inodes[0]);
                self.cluster.report(client, self.inodes[1]);
                if !self.cluster.is_inline(inode) {
                    self.write(client, file, at, &bytes);
                }
                self.sessions += 1;
                self.cluster.expire(client, &self.inodes, self.sessions);
            }
        }
    }

    fn write(&mut self, client: usize, file: usize, at: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.cluster.write(client, self.inodes[file], at, bytes);
        let (start, end) = (at as usize, at as usize + bytes.len());
        let model = &mut self.model[file];
        model.resize(model.len().max(end), 0);
        model[start..end].copy_from_slice(bytes);
    }

    /// A hole is zeros that are written, as far as the file reaches.
    fn punch(&mut self, client: usize, file: usize, at: u64, length: u64) {
        let end = (at + length).min(self.cluster.size(client, self.inodes[file]));
        if at < end {
            let zeros = vec![0; (end - at) as usize];
            self.write(client, file, at, &zeros);
        }
    }

    fn compare(&mut self, client: usize) {
        for (inode, model) in self.inodes.iter().zip(&self.model) {
            let size = self.cluster.size(client, *inode);
            assert_eq!(size, model.len() as u64, "inode {inode}");
            let found = self.cluster.read(client, *inode, 0, u64::MAX);
            if found != *model {
                let differs =
                    found.iter().zip(model).position(|(found, expected)| found != expected);
                panic!(
                    "inode {inode} has {} bytes of {}, others at {differs:?}",
                    found.len(),
                    model.len()
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn bytes_are_those_of_a_vector(steps in steps()) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.run(step);
            pair.compare(step.client);
        }
        // And whoever comes later sees them.
        for file in 0..FILES {
            pair.cluster.report(0, pair.inodes[file]);
            pair.cluster.report(1, pair.inodes[file]);
        }
        (0..CLIENTS).for_each(|client| pair.compare(client));
    }
}
