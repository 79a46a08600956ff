//! Who listens: the subscribers of the event stream, and the fan-out to them.
//!
//! Knows frames of bytes and their order, not what they say. The supervisor publishes; every stream client subscribes on its own thread
//! and drains its own queue there. A subscriber whose queue is full is hung up on: it comes back and gets a snapshot.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use crate::domain::{SessionId, UserId};
use crate::limits;

/// What a subscriber's queue carries.
#[derive(Clone, Debug)]
pub enum Frame {
    /// Encoded events of its owner, the first of which has this id.
    Events(u64, Arc<[u8]>),
    /// The stream is to end at this moment, for this reason.
    EndAt(Instant, &'static str),
    /// Look whether the client is still there: somebody wants its place.
    Check,
}

/// Closes a subscriber's socket from another thread.
pub type HangUp = Arc<dyn Fn() + Send + Sync>;

struct Subscriber {
    owner: UserId,
    session: SessionId,
    queue: Sender<Frame>,
    thread: Thread,
    hang_up: HangUp,
}

impl Subscriber {
    /// Queues a frame and wakes who waits for it in [`Subscription::next`]; says whether there was room.
    fn offer(&self, frame: Frame) -> bool {
        let offered = self.queue.try_send(frame).is_ok();
        self.thread.unpark();
        offered
    }
}

/// There are as many streams as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// In all.
    Crowded,
    /// Of this user.
    UserCrowded,
}

/// The register of subscribers.
#[derive(Default)]
pub struct Hub {
    subscribers: Mutex<HashMap<u64, Subscriber>>,
    next: AtomicUsize,
    active: AtomicUsize,
    streams: usize,
    streams_per_user: usize,
}

impl Hub {
    /// A hub for at most `streams` subscribers, `streams_per_user` of each user.
    #[must_use]
    pub fn new(streams: usize, streams_per_user: usize) -> Hub {
        Hub { streams, streams_per_user, ..Hub::default() }
    }

    /// Registers the calling thread as a subscriber: every frame published from now on is in its queue. What was published before is in the snapshot that it
    /// reads *afterwards*; frames with a lower id than that snapshot's are already in it.
    ///
    /// # Errors
    /// When there are too many. Those in the way are asked to look whether their clients are still there: a page that was reloaded leaves
    /// a stream that would notice at its next heartbeat only.
    pub fn subscribe(
        self: &Arc<Hub>,
        owner: UserId,
        session: SessionId,
        hang_up: HangUp,
    ) -> Result<Subscription, Refused> {
        let (queue, frames) = bounded(limits::STREAM_QUEUE);
        let mut subscribers = self.lock();
        let mut refused = (subscribers.len() >= self.streams).then_some(Refused::Crowded);
        if subscribers.values().filter(|s| s.owner == owner).count() >= self.streams_per_user {
            refused = Some(Refused::UserCrowded);
        }
        if let Some(refused) = refused {
            for s in subscribers.values().filter(|s| refused == Refused::Crowded || s.owner == owner) {
                // A full queue is being drained, or its client dropped; both find out by themselves.
                s.offer(Frame::Check);
            }
            return Err(refused);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed) as u64;
        subscribers.insert(id, Subscriber { owner, session, queue, thread: thread::current(), hang_up });
        self.active.store(subscribers.len(), Ordering::Release);
        drop(subscribers);
        Ok(Subscription { hub: Arc::clone(self), id, frames })
    }

    /// How many subscribers there are.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// How many subscribers there may be.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.streams
    }

    /// Puts a frame into the queue of each of the owner's subscribers; hangs up on those whose queue is full. Never blocks.
    pub fn publish(&self, frames: &HashMap<UserId, (u64, Arc<[u8]>)>) {
        self.drop_where(|s| {
            frames.get(&s.owner).is_some_and(|(id, bytes)| !s.offer(Frame::Events(*id, Arc::clone(bytes))))
        });
    }

    /// Ends the streams of these sessions at `at`.
    pub fn end_sessions(&self, ended: &dyn Fn(SessionId) -> bool, at: Instant, reason: &'static str) {
        self.drop_where(|s| ended(s.session) && !s.offer(Frame::EndAt(at, reason)));
    }

    fn drop_where(&self, failed: impl Fn(&Subscriber) -> bool) {
        let mut subscribers = self.lock();
        let lost: Vec<u64> = subscribers.iter().filter(|(_, s)| failed(s)).map(|(id, _)| *id).collect();
        let lost: Vec<Subscriber> = lost.iter().filter_map(|id| subscribers.remove(id)).collect();
        self.active.store(subscribers.len(), Ordering::Release);
        drop(subscribers);
        for Subscriber { queue, thread, hang_up, .. } in lost {
            hang_up();
            drop(queue);
            thread.unpark();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Subscriber>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the register; dropping it gives the place back.
pub struct Subscription {
    hub: Arc<Hub>,
    id: u64,
    /// The queue. It is disconnected when the subscriber was too slow.
    pub frames: Receiver<Frame>,
}

impl Subscription {
    /// The next frame. Sleeps at once where there is none: the channel's own wait spins and yields first, and a thousand threads that did
    /// so after every frame took more CPU than the frames (37 % of it in `sched_yield`, by `perf`).
    ///
    /// # Errors
    /// `Timeout` at `until`, `Disconnected` when the subscriber was too slow.
    ///
    /// # Blocks
    /// Until then. To be called by the thread that subscribed.
    pub fn next(&self, until: Instant) -> Result<Frame, RecvTimeoutError> {
        loop {
            match self.frames.try_recv() {
                Ok(frame) => return Ok(frame),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(RecvTimeoutError::Timeout);
                    }
                    thread::park_timeout(left);
                }
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscribers = self.hub.lock();
        subscribers.remove(&self.id);
        self.hub.active.store(subscribers.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::*;

    const ANA: UserId = UserId(1);
    const BEA: UserId = UserId(2);

    fn frame(owner: UserId, id: u64) -> HashMap<UserId, (u64, Arc<[u8]>)> {
        HashMap::from([(owner, (id, Arc::from(&b"x"[..])))])
    }

    #[test]
    fn case_76_a_frame_reaches_its_owners_subscribers_only() {
        let hub = Arc::new(Hub::new(8, 8));
        let ana = hub.subscribe(ANA, SessionId(1), Arc::new(|| {})).unwrap();
        let bea = hub.subscribe(BEA, SessionId(2), Arc::new(|| {})).unwrap();
        hub.publish(&frame(ANA, 7));
        assert!(matches!(ana.frames.try_recv(), Ok(Frame::Events(7, _))));
        assert!(bea.frames.try_recv().is_err());
    }

    #[test]
    fn case_68_a_subscriber_that_does_not_drain_its_queue_is_hung_up_on() {
        let hub = Arc::new(Hub::new(8, 8));
        let hung_up = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&hung_up);
        let slow =
            hub.subscribe(ANA, SessionId(1), Arc::new(move || flag.store(true, Ordering::Release))).unwrap();
        let quick = hub.subscribe(ANA, SessionId(2), Arc::new(|| {})).unwrap();
        for id in 0..=limits::STREAM_QUEUE as u64 {
            hub.publish(&frame(ANA, id));
            assert!(quick.frames.try_recv().is_ok());
        }
        assert!(hung_up.load(Ordering::Acquire));
        assert_eq!(slow.frames.try_iter().count(), limits::STREAM_QUEUE);
        assert_eq!(hub.active(), 1);
    }

    #[test]
    fn a_waiting_subscriber_is_woken_by_a_frame_and_by_its_end_and_waits_no_longer_than_it_says() {
        let hub = Arc::new(Hub::new(8, 8));
        let (waits, is_waiting) = bounded(1);
        let (heard, ears) = bounded(limits::STREAM_QUEUE);
        let theirs = Arc::clone(&hub);
        let listener = crate::threads::spawn("listener", 64 * 1024, move || {
            let subscription = theirs.subscribe(ANA, SessionId(1), Arc::new(|| {})).unwrap();
            let short = subscription.next(Instant::now() + Duration::from_millis(30));
            assert_eq!(short.unwrap_err(), RecvTimeoutError::Timeout);
            waits.send(()).unwrap();
            let late = Instant::now() + Duration::from_secs(60);
            while let Ok(frame) = subscription.next(late) {
                heard.send(matches!(frame, Frame::Events(..))).unwrap();
            }
        });
        is_waiting.recv().unwrap();
        hub.publish(&frame(ANA, 1));
        assert_eq!(ears.recv_timeout(Duration::from_secs(10)), Ok(true));
        hub.drop_where(|_| true);
        let ended = ears.recv_timeout(Duration::from_secs(10));
        assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
        drop(listener);
    }

    #[test]
    fn case_69_the_places_are_bounded_and_come_back() {
        let hub = Arc::new(Hub::new(3, 2));
        let subscribe = |owner| hub.subscribe(owner, SessionId(1), Arc::new(|| {}));
        let first = subscribe(ANA).unwrap();
        let _second = subscribe(ANA).unwrap();
        assert_eq!(subscribe(ANA).err(), Some(Refused::UserCrowded));
        let _third = subscribe(BEA).unwrap();
        assert_eq!(subscribe(BEA).err(), Some(Refused::Crowded));
        drop(first);
        assert!(subscribe(BEA).is_ok());
    }
}
