//! Panics in a run: each is a failure of it. A runtime would keep those of its tasks to itself, and what
//! such a task was for would look like a server that fell silent.

use std::{cell::RefCell, panic, sync::Once};

thread_local! {
    /// Of the run on this thread.
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on the panics of this thread are kept, and shown as before.
pub(crate) fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            SEEN.with_borrow_mut(|seen| seen.push(info.to_string()));
            before(info);
        }));
    });
    SEEN.take();
}

/// Those of this thread since [`watch`].
pub(crate) fn seen() -> Vec<String> {
    SEEN.take()
}
