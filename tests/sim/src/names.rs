//! The namespace machine, or one with an error in it.

use bytes::Bytes;
use ff2_meta_core::{Kv, KvRead, StateMachine, namespace::Namespace};
use ff2_proto::pb;
use prost::Message as _;

use crate::mutation::Mutation;

/// Commands that share an entry, at most.
const ENTRY_MAX: u64 = 1_000;

/// Where the records of folders' quotas lie.
const QUOTAS: (&[u8], &[u8]) = (b"q", b"r");

fn is_removal(command: &[u8]) -> bool {
    let request = pb::NsCommand::decode(command).ok().and_then(|command| command.request);
    matches!(request.and_then(|request| request.op), Some(pb::ns_request::Op::Unlink(_)))
}

#[derive(Debug)]
pub(crate) struct Names {
    machine: Namespace,
    mutation: Option<Mutation>,
    /// The entry applied last, and how many commands of it.
    last: (u64, u64),
}

impl Names {
    pub(crate) fn new(mutation: Option<Mutation>) -> Self {
        Self { machine: Namespace::new(), mutation, last: (0, 0) }
    }

    /// Gives a mutation a number that none had before, so that it is taken for a new one.
    fn renumbered(&mut self, index: u64, command: &[u8]) -> Option<Vec<u8>> {
        let count = if self.last.0 == index { self.last.1 + 1 } else { 0 };
        self.last = (index, count);
        let mut command = pb::NsCommand::decode(command).ok()?;
        let request = command.request.as_mut().filter(|request| request.seq != 0)?;
        request.seq = index * ENTRY_MAX + count;
        request.ack_below = request.seq;
        Some(command.encode_to_vec())
    }
}

impl StateMachine for Names {
    type View = ();

    fn restore(&mut self, kv: &dyn KvRead) {
        self.machine.restore(kv);
    }

    fn apply(&mut self, index: u64, command: &[u8], kv: &mut dyn Kv) -> Bytes {
        if self.mutation == Some(Mutation::Quota) && is_removal(command) {
            let counted = kv.scan(QUOTAS.0, QUOTAS.1, 100);
            let answer = self.machine.apply(index, command, kv);
            counted.into_iter().for_each(|(key, record)| kv.put(&key, record));
            return answer;
        }
        let forgets = self.mutation == Some(Mutation::OnceNames);
        let other = if forgets { self.renumbered(index, command) } else { None };
        self.machine.apply(index, other.as_deref().unwrap_or(command), kv)
    }

    fn view(&self) {}
}
