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
