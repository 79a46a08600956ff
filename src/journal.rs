//! The log's way out: a bounded queue, and one thread that writes it to standard error.
//!
//! Whoever logs never waits for whoever reads the log: when the queue is full a line is dropped and counted, and the count is written
//! once there is room again.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, bounded};
use env_logger::{Builder, Env, Target};
use log::LevelFilter;

use crate::limits;
use crate::threads::spawn;

/// Lines that were dropped since the start.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many lines of the log were dropped since the start, because nobody read it in time.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

enum Item {
    Line(Vec<u8>),
    /// Everything before it is written.
    Flushed(Sender<()>),
}

/// The running log; dropping it waits a moment until what was logged is written.
pub struct Journal(Sender<Item>);

impl Drop for Journal {
    fn drop(&mut self) {
        let (done, written) = bounded(1);
        if self.0.try_send(Item::Flushed(done)).is_ok() {
            let _ = written.recv_timeout(limits::LOG_FLUSH_MAX);
        }
    }
}

/// Takes the log of this process from now on: one line per fact, with the time where the system's journal does not add it.
///
/// # Errors
/// When the system refuses a thread.
pub fn to_stderr() -> io::Result<Journal> {
    let (queue, items) = bounded(limits::LOG_QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let pipe = Pipe { queue: queue.clone(), dropped: Arc::clone(&dropped) };
    spawn("log", limits::STACK_DEFAULT, move || write_out(&items, &dropped))?.detach();
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let mut builder = Builder::from_env(Env::default().default_filter_or("info"));
    // The engine client's library tells of every read and write.
    builder.filter_module("ureq", LevelFilter::Warn).filter_module("ureq_proto", LevelFilter::Warn);
    builder.target(Target::Pipe(Box::new(pipe))).format(move |out, record| {
        let (level, text) = (record.level().as_str().to_ascii_lowercase(), record.args());
        if under_systemd {
            writeln!(out, "{level}: {text}")
        } else {
            writeln!(out, "{} {level}: {text}", humantime::format_rfc3339_millis(SystemTime::now()))
        }
    });
    // A second call, in a test of this process, is no reason to fail.
    drop(builder.try_init());
    Ok(Journal(queue))
}

struct Pipe {
    queue: Sender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Write for Pipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Item::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_out(items: &Receiver<Item>, dropped: &AtomicU64) {
    for item in items {
        match item {
            // A log that nobody can write is no reason to stop serving.
            Item::Line(line) => drop(io::stderr().write_all(&line)),
            Item::Flushed(done) => drop(done.try_send(())),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            drop(writeln!(io::stderr(), "{lost} lines of the log were dropped: nobody read it in time"));
        }
    }
}
