//! The channels of all flows, close together in memory: solving reads little else.

/// Numbers have 32 bits here: half of the memory that is read.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    channels: Vec<u32>,
    /// Where each flow's begin, and at last where all end.
    starts: Vec<u32>,
}

impl Paths {
    pub(crate) fn new() -> Self {
        Self { channels: Vec::new(), starts: vec![0] }
    }

    /// Of the next flow. A flow that goes leaves its path here, as it leaves its number.
    pub(crate) fn push(&mut self, channels: &[usize]) {
        self.channels.extend(channels.iter().map(|channel| short(*channel)));
        self.starts.push(short(self.channels.len()));
    }

    pub(crate) fn of(&self, flow: usize) -> &[u32] {
        &self.channels[self.starts[flow] as usize..self.starts[flow + 1] as usize]
    }
}

/// A number of a flow or channel.
pub(crate) fn short(number: usize) -> u32 {
    u32::try_from(number).expect("below 4 billion: more would not fit in memory")
}
