//! What the service manager is told: that muelle is ready, how it is, that it stops; and nothing when it is stuck.
//!
//! Speaks the protocol of sd_notify(3), which is a datagram to the socket named in `NOTIFY_SOCKET`. (The crate `sd-notify` cannot reach
//! an abstract socket, and its send may block.) What it tells comes from asking: `GET /healthz`, over TCP, at every address listened on.
//! Runs on the thread `watchdog`, blocks on its own answer and on nothing else. Must not know what healthy means: the API says it.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::http::Visitor;
use crate::limits;
use crate::threads::{self, Thread};

/// The manager that started us and wants to hear from us.
pub struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// Without a word within this time it kills us.
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager that the environment names, if it names one.
    ///
    /// # Errors
    /// When its address is none, or the system refuses a socket.
    pub fn of(env: &dyn Fn(&str) -> Option<OsString>) -> io::Result<Option<Manager>> {
        let Some(name) = env("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(&name),
        };
        let number = |name: &str| env(name)?.to_str()?.parse::<u64>().ok();
        // Those of somebody else, inherited, are not for us.
        let ours =
            env("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && ours).map(Duration::from_micros);
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Some(Manager { socket, address: address?, watchdog }))
    }

    /// For how long a thread may be silent if the manager is to notice; `None` without a watchdog.
    #[must_use]
    pub fn stuck_after(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| watchdog * limits::STUCK_AFTER_WATCHDOGS)
    }

    fn tell(&self, state: &str) {
        // Not heard is not said: the manager that matters has a watchdog, and the next word comes soon.
        if let Err(error) = self.socket.send_to_addr(state.as_bytes(), &self.address) {
            log::debug!("cannot tell the service manager {state:?}: {error}");
        }
    }
}

/// The running thread; dropping it joins it.
pub struct Watchdog {
    manager: Arc<Manager>,
    stop: Option<Sender<()>>,
    // Below the sender, so that it is told to end before it is joined.
    _thread: Thread,
}

impl Watchdog {
    /// Tells that we stop and asks the thread to end, without waiting.
    #[must_use]
    pub fn stop(mut self) -> Watchdog {
        self.stop = None;
        self.manager.tell("STOPPING=1\nSTATUS=stopping");
        self
    }
}

/// Starts the thread; `summary` says in a line how it is.
///
/// # Errors
/// When the system refuses a thread.
pub fn start(
    manager: Manager,
    visitor: Visitor,
    summary: Box<dyn Fn() -> String + Send>,
) -> io::Result<Watchdog> {
    let (stop, stopped) = bounded(0);
    let manager = Arc::new(manager);
    let feeder = Feeder { manager: Arc::clone(&manager), visitor, summary, told: String::new() };
    let thread = threads::spawn("watchdog", limits::STACK_DEFAULT, move || feeder.run(&stopped))?;
    Ok(Watchdog { manager, stop: Some(stop), _thread: thread })
}

struct Feeder {
    manager: Arc<Manager>,
    visitor: Visitor,
    summary: Box<dyn Fn() -> String + Send>,
    /// The last summary that the manager was told.
    told: String,
}

impl Feeder {
    fn run(mut self, stopped: &Receiver<()>) {
        let every =
            self.manager.watchdog.map_or(limits::SERVICE_STATUS_EVERY, |it| it / limits::WATCHDOG_PARTS);
        let patience = self.manager.stuck_after().unwrap_or(limits::STUCK_AFTER);
        let (mut answered, mut ready, mut well) = (Instant::now(), false, true);
        loop {
            let asked = Instant::now();
            let answer = self.visitor.get("/healthz", limits::ASK_ITSELF_MAX.min(every / 2));
            if threads::is_closed(stopped) {
                return;
            }
            let fault = match answer {
                Ok((200, _)) => {
                    answered = asked;
                    None
                }
                // Some thread is stuck, and has been for as long as our patience.
                Ok((500, body)) => Some(body),
                // Too busy to answer, or too stuck: which of them, time tells.
                Ok((status, _)) => (answered.elapsed() > patience).then(|| format!("status {status}")),
                Err(error) => (answered.elapsed() > patience).then(|| error.to_string()),
            };
            if let (true, Some(fault)) = (well, &fault) {
                log::error!("stuck, and the service manager hears no more of it: {fault}");
            }
            well = fault.is_none();
            ready |= answered == asked;
            if ready && well {
                self.feed(answered == asked);
            }
            let pause = if ready { every } else { limits::ASK_ITSELF_AT_START };
            if threads::closed_within(stopped, pause.saturating_sub(asked.elapsed())) {
                return;
            }
        }
    }

    /// Says that all is well, and again that we are ready, should that have got lost; how it is only if that was just answered, since it takes locks.
    fn feed(&mut self, answered: bool) {
        let mut state = String::from("READY=1\nWATCHDOG=1");
        let summary = if answered { (self.summary)() } else { self.told.clone() };
        if summary != self.told {
            state = format!("{state}\nSTATUS={summary}");
            self.told = summary;
        }
        self.manager.tell(&state);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::http::{Bound, Deadlines, Handler, Head, Refusal, Request, Response, Settings};

    /// Is not ready for the first three requests.
    struct Late(AtomicU32);

    impl Handler for Late {
        fn handle(&self, _: &mut Request<'_>) -> Response {
            Response::empty(if self.0.fetch_add(1, Ordering::SeqCst) < 3 { 503 } else { 200 })
        }

        fn refuse(&self, refusal: &Refusal, _: Option<&Head>) -> Response {
            Response::empty(refusal.status())
        }
    }

    #[test]
    fn it_is_not_ready_before_it_has_answered_well() {
        let settings = Settings {
            listen: vec![([127, 0, 0, 1], 0).into()],
            connections: 8,
            per_address: 8,
            trusted_peers: Vec::new(),
            name: "test",
            deadlines: Deadlines::default(),
        };
        let handler = Arc::new(Late(AtomicU32::new(0)));
        let server = Bound::bind(&settings).unwrap().serve(Arc::clone(&handler) as Arc<dyn Handler>).unwrap();
        let name = format!("muelle-test-{}", std::process::id());
        let heard = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let env = |variable: &str| (variable == "NOTIFY_SOCKET").then(|| format!("@{name}").into());
        let manager = Manager::of(&env).unwrap().unwrap();
        assert_eq!(manager.stuck_after(), None);
        let running = start(manager, server.visitor(), Box::new(|| "well".to_owned())).unwrap();
        let mut word = [0; 256];
        let length = heard.recv(&mut word).unwrap();
        assert_eq!(&word[..length], b"READY=1\nWATCHDOG=1\nSTATUS=well");
        assert!(handler.0.load(Ordering::SeqCst) >= 4);
        drop(running.stop());
        let length = heard.recv(&mut word).unwrap();
        assert_eq!(&word[..length], b"STOPPING=1\nSTATUS=stopping");
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let of = |pid: &str| {
            let env = |variable: &str| match variable {
                "NOTIFY_SOCKET" => Some("/nowhere".into()),
                "WATCHDOG_USEC" => Some("30000000".into()),
                _ => Some(pid.to_owned().into()),
            };
            Manager::of(&env).unwrap().unwrap().stuck_after()
        };
        assert_eq!(of(&std::process::id().to_string()), Some(limits::STUCK_AFTER));
        assert_eq!(of("1"), None);
        assert_eq!(of("many"), None);
        assert!(Manager::of(&|_| None).unwrap().is_none());
    }
}
