//! Named threads with bounded stacks that are joined, and the token that asks them to stop.
//!
//! The only place that starts a thread. A panic on a thread of ours is written to the log with the thread's name; it never
//! takes the process down. Knows nothing of what the threads do.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// Starts `body` on a thread called `name` with a stack of `stack` bytes.
///
/// # Errors
/// When the system refuses another thread; the caller sheds the work it was meant for.
pub fn spawn(name: &str, stack: usize, body: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    let logged = name.to_owned();
    #[expect(clippy::disallowed_methods, reason = "the one place that starts threads")]
    let handle = Builder::new().name(name.to_owned()).stack_size(stack).spawn(move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            log::error!("thread {logged} panicked: {}", panic_text(panic.as_ref()));
        }
    })?;
    Ok(Thread { name: name.to_owned(), handle: Some(handle) })
}

/// What a panic said, for the log.
#[must_use]
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

/// A running thread. Dropping it joins it: whatever makes the thread end (a closed channel, a [`Stop`]) is dropped or raised
/// before.
#[derive(Debug)]
pub struct Thread {
    name: String,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// The name given at the start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the thread's body has returned.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets the thread go on by itself: for the bounded connection threads, whose number is counted elsewhere.
    pub fn detach(mut self) {
        self.handle = None;
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            // The body's panics are caught above; there is nothing left in the result.
            drop(handle.join());
        }
    }
}

/// Says once, to any number of threads, that it is time to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A token that nobody has raised.
    #[must_use]
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Asks everybody who holds the token to end.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
