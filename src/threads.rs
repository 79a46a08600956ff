//! Named threads with bounded stacks that are joined, pools of them, and how they are asked to end.
//!
//! The only place that starts a thread. A panic on a thread of ours is written to the log with the thread's name; it never
//! takes the process down. Knows nothing of what the threads do.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};

use crate::limits;

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
    Ok(Thread { handle: Some(handle) })
}

/// The same for a thread that the process cannot do without: when it panics, its name is sent to `died`.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_vital(
    name: &str,
    stack: usize,
    died: Sender<String>,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<Thread> {
    let mut obituary = Obituary { name: name.to_owned(), died };
    spawn(name, stack, move || {
        body();
        obituary.name.clear();
    })
}

/// Tells of a thread that unwinds.
struct Obituary {
    name: String,
    died: Sender<String>,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // One death is enough to end the process.
            drop(self.died.try_send(std::mem::take(&mut self.name)));
        }
    }
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

/// A running thread. Dropping it joins it: whatever makes the thread end (a closed channel) is dropped before.
#[derive(Debug)]
pub struct Thread {
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Lets the thread go on by itself: for the bounded connection threads, whose number is counted elsewhere.
    pub fn detach(mut self) {
        self.handle = None;
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // A thread that drops the last handle on itself cannot wait for its own end.
        let itself = |handle: &JoinHandle<()>| handle.thread().id() == std::thread::current().id();
        if let Some(handle) = self.handle.take().filter(|handle| !itself(handle)) {
            // The body's panics are caught above; there is nothing left in the result.
            drop(handle.join());
        }
    }
}

/// Whether the other end of a channel that carries nothing has been dropped: how a thread is asked to end.
#[must_use]
pub fn is_closed(stopped: &Receiver<()>) -> bool {
    stopped.try_recv() == Err(TryRecvError::Disconnected)
}

/// Waits for `pause`, or until [`is_closed`]; says whether it is.
///
/// # Blocks
/// At most `pause`.
#[must_use]
pub fn closed_within(stopped: &Receiver<()>, pause: Duration) -> bool {
    stopped.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected)
}

/// The jobs that run now, with their threads' names: at most as many as the pools have threads.
static RUNNING: Mutex<Vec<(Arc<str>, Instant)>> = Mutex::new(Vec::new());

/// The job that has run for the longest, of all pools of this process: its thread, and for how long. Every job ends by bounds of its
/// own well before [`limits::STUCK_AFTER`]; one that does not hangs.
#[must_use]
pub fn longest_job() -> Option<(Arc<str>, Duration)> {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.iter().min_by_key(|(_, since)| *since).map(|(name, since)| (Arc::clone(name), since.elapsed()))
}

/// Counts a job of a thread among those that run, until it is dropped.
struct Running<'n>(&'n Arc<str>);

impl Running<'_> {
    fn begin(name: &Arc<str>) -> Running<'_> {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push((Arc::clone(name), Instant::now()));
        Running(name)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).retain(|(name, _)| !Arc::ptr_eq(name, self.0));
    }
}

/// Work for a [`Pool`].
pub type Job = Box<dyn FnOnce() + Send>;

/// A bounded number of threads behind a bounded queue. Threads start when there is work for them and stay.
///
/// A job that panics is logged and costs nothing else; whoever waits for its result sees its channel closed.
pub struct Pool {
    name: &'static str,
    stack: usize,
    max: usize,
    queue: Sender<Job>,
    jobs: Receiver<Job>,
    /// Jobs taken in and not finished: as many threads are wanted.
    open: Arc<AtomicUsize>,
    threads: Mutex<Vec<Thread>>,
    /// Held by every thread: closed when the last one has ended.
    alive: (Sender<()>, Receiver<()>),
}

/// The pools of this process and the work each has, running and waiting, by name. Pools of one name count together.
#[must_use]
pub fn pools() -> Vec<(&'static str, usize)> {
    let mut pools: Vec<(&'static str, usize)> = Vec::new();
    for (name, open) in POOLS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let Some(open) = open.upgrade().map(|open| open.load(Ordering::Acquire)) else { continue };
        match pools.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += open,
            None => pools.push((name, open)),
        }
    }
    pools
}

/// Every pool enters itself, so that none is missing from the numbers.
static POOLS: Mutex<Vec<(&'static str, Weak<AtomicUsize>)>> = Mutex::new(Vec::new());

/// The pool has as much work as it may take.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct Full;

impl Pool {
    /// A pool of at most `max` threads called `name-1`, `name-2`… with a queue of `queue` jobs.
    #[must_use]
    pub fn new(name: &'static str, max: usize, queue: usize, stack: usize) -> Pool {
        let (sender, jobs) = bounded(queue);
        let (open, threads, alive) = (Arc::default(), Mutex::default(), bounded(0));
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|(_, open)| open.strong_count() > 0);
        pools.push((name, Arc::downgrade(&open)));
        drop(pools);
        Pool { name, stack, max, queue: sender, jobs, open, threads, alive }
    }

    /// Queues a job. Never blocks.
    ///
    /// # Errors
    /// [`Full`] when the queue is, or when the system refuses the first thread.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        let wanted = self.open.fetch_add(1, Ordering::AcqRel) + 1;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.len() < wanted.min(self.max)
            && let Err(refused) = self.grow(&mut threads)
        {
            log::warn!("no thread for {}: {refused}", self.name);
        }
        let served = !threads.is_empty();
        drop(threads);
        let sent = if served {
            self.queue.try_send(Box::new(job))
        } else {
            Err(TrySendError::Full(Box::new(job) as Job))
        };
        sent.map_err(|_| {
            self.open.fetch_sub(1, Ordering::AcqRel);
            Full
        })
    }

    fn grow(&self, threads: &mut Vec<Thread>) -> io::Result<()> {
        let (jobs, open, alive) = (self.jobs.clone(), Arc::clone(&self.open), self.alive.0.clone());
        let name: Arc<str> = format!("{}-{}", self.name, threads.len() + 1).into();
        threads.push(spawn(&name.clone(), self.stack, move || {
            for job in jobs {
                let _running = Running::begin(&name);
                if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
                    log::error!("a job on {name} panicked: {}", panic_text(panic.as_ref()));
                }
                open.fetch_sub(1, Ordering::AcqRel);
            }
            drop(alive);
        })?);
        Ok(())
    }
}

impl Drop for Pool {
    /// Lets queued and running jobs end, at most for [`limits::JOIN_MAX`]; what hangs longer is left behind.
    fn drop(&mut self) {
        self.queue = bounded(0).0;
        self.alive.0 = bounded(0).0;
        if !closed_within(&self.alive.1, limits::JOIN_MAX) {
            log::warn!("{} jobs of {} are left behind", self.open.load(Ordering::Acquire), self.name);
            let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner);
            threads.drain(..).for_each(Thread::detach);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_runs_as_many_jobs_at_once_as_it_has_threads_and_refuses_beyond_its_queue() {
        let pool = Pool::new("test", 2, 1, 64 * 1024);
        let (started, has_started) = bounded(8);
        let (release, released) = bounded::<()>(0);
        let blocker = || {
            let (started, released) = (started.clone(), released.clone());
            move || {
                started.send(()).unwrap();
                released.recv().unwrap_err();
            }
        };
        for _ in 0..2 {
            pool.submit(blocker()).unwrap();
            has_started.recv().unwrap();
        }
        pool.submit(blocker()).unwrap();
        assert_eq!(pool.submit(|| {}), Err(Full));
        drop(release);
        has_started.recv().unwrap();
    }

    #[test]
    fn a_job_that_hangs_is_the_longest_until_it_ends() {
        let pool = Pool::new("hangs", 2, 4, 64 * 1024);
        let (release, released) = bounded::<()>(0);
        let (started, has_started) = bounded(1);
        let ours = || longest_job().filter(|(name, _)| name.starts_with("hangs-"));
        pool.submit(move || {
            started.send(()).unwrap();
            released.recv().unwrap_err();
        })
        .unwrap();
        has_started.recv().unwrap();
        let (first, since) = ours().unwrap();
        pool.submit(|| panic!("on purpose")).unwrap();
        while ours().unwrap().1 <= since + Duration::from_millis(20) {
            std::thread::yield_now();
        }
        assert_eq!(ours().unwrap().0, first);
        drop(release);
        drop(pool);
        assert_eq!(ours(), None);
    }

    #[test]
    fn the_death_of_a_vital_thread_is_told_and_its_end_is_not() {
        let (died, deaths) = bounded(1);
        drop(spawn_vital("lives", 64 * 1024, died.clone(), || {}).unwrap());
        assert!(deaths.try_recv().is_err());
        drop(spawn_vital("dies", 64 * 1024, died, || panic!("on purpose")).unwrap());
        assert_eq!(deaths.try_recv().as_deref(), Ok("dies"));
    }

    #[test]
    fn case_112_a_job_that_panics_costs_nobody_else_anything() {
        let pool = Pool::new("test", 1, 4, 64 * 1024);
        pool.submit(|| panic!("on purpose")).unwrap();
        let (done, is_done) = bounded(1);
        pool.submit(move || done.send(7).unwrap()).unwrap();
        assert_eq!(is_done.recv(), Ok(7));
    }
}
