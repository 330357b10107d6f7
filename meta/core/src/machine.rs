//! What a replicated state machine is to the group that runs it.

use bytes::Bytes;

use crate::kv::{Kv, KvRead};

/// A state machine whose state lives in a key space. Equal commands in equal order give equal keys
/// and values on every replica: `apply` may use nothing but its arguments and what `restore` read.
pub trait StateMachine: Send + 'static {
    /// What readers on other threads see of the machine's memory.
    type View: Clone + Send + Sync + 'static;

    /// Rebuilds the machine's memory: at start, and after a snapshot replaced the keys.
    fn restore(&mut self, kv: &dyn KvRead);

    /// Applies the command logged at `index` and returns the answer for its proposer. A command that
    /// cannot be decoded is answered, never a panic.
    fn apply(&mut self, index: u64, command: &[u8], kv: &mut dyn Kv) -> Bytes;

    fn view(&self) -> Self::View;
}

/// A command of a level that this release does not know may mean more than this release would do: it stops before its
/// state differs from that of others. The cluster asks for no such level while a member does not know it, so this
/// is a program older than the cluster (docs/design/0010).
pub(crate) fn assert_known(level: u32) {
    assert!(
        level <= ff2_proto::LEVEL,
        "the log has a command of level {level}, and this program knows no more than {}: install a newer release",
        ff2_proto::LEVEL
    );
}
