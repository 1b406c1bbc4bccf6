//! Room on the stack for what parsers of rules and templates need.

use std::io;
use std::panic::resume_unwind;
use std::thread;

/// Stack of the thread in bytes. They call themselves for each part of what they read, which has a
/// bounded length; without optimization that takes some 80 KiB a level. Only what is used of it
/// takes memory.
const STACK_BYTES: usize = 64 * 1_024 * 1_024;

/// Runs `work` on a thread with a roomy stack, and waits for it.
///
/// # Errors
/// If there is no thread to be had.
pub(crate) fn roomy<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("parser".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)?;
        thread.join().map_err(|panic| resume_unwind(panic))
    })
}
