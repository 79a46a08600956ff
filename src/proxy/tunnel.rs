//! Two sockets joined: what comes from one goes to the other, both ways, until one ends or nothing moves for long.
//!
//! On the thread of the client's connection, which sleeps in one poll for both. A quiet tunnel holds no buffer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::limits;

/// Joins the sockets; `early` are bytes that have been read already, of each side. `moved` is told how many bytes went towards the app,
/// and from it.
///
/// # Errors
/// Those of the sockets; a tunnel that was quiet for `idle` has timed out.
///
/// # Blocks
/// Until the tunnel ends.
pub fn join(
    client: &TcpStream,
    app: &TcpStream,
    (from_client, from_app): (&[u8], &[u8]),
    idle: Duration,
    moved: &mut dyn FnMut(u64, u64),
) -> io::Result<()> {
    write(app, from_client)?;
    write(client, from_app)?;
    moved(from_client.len() as u64, from_app.len() as u64);
    let (mut up_open, mut down_open) = (true, true);
    let mut quiet_since = Instant::now();
    while up_open && down_open {
        let left = idle.saturating_sub(quiet_since.elapsed());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let events = |open: bool| if open { PollFlags::IN } else { PollFlags::empty() };
        let mut sockets = [PollFd::new(client, events(up_open)), PollFd::new(app, events(down_open))];
        let timeout = Timespec { tv_sec: i64::try_from(left.as_secs() + 1).unwrap_or(i64::MAX), tv_nsec: 0 };
        match poll(&mut sockets, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = sockets.map(|socket| !socket.revents().is_empty());
        if ready[0] && up_open {
            let count = pass(client, app)?;
            moved(count, 0);
            up_open = count > 0;
        }
        if ready[1] && down_open {
            let count = pass(app, client)?;
            moved(0, count);
            down_open = count > 0;
        }
        quiet_since = Instant::now();
    }
    // Whoever ended first has been told on; the other may still say its last word.
    drain(client, app, up_open, down_open, moved)
}

/// One direction has ended: the other goes on until its end, for a while.
fn drain(
    client: &TcpStream,
    app: &TcpStream,
    up_open: bool,
    down_open: bool,
    moved: &mut dyn FnMut(u64, u64),
) -> io::Result<()> {
    let (from, to, up) = match (up_open, down_open) {
        (true, false) => (client, app, true),
        (false, true) => (app, client, false),
        _ => return Ok(()),
    };
    from.set_read_timeout(Some(limits::PROXY_HALF_OPEN_MAX))?;
    loop {
        let count = pass(from, to)?;
        if count == 0 {
            return Ok(());
        }
        if up { moved(count, 0) } else { moved(0, count) }
    }
}

/// Passes on what is there; at the end of one side the other is told.
fn pass(from: &TcpStream, to: &TcpStream) -> io::Result<u64> {
    let mut buffer = [0; limits::PROXY_COPY_BYTES];
    let count = match { from }.read(&mut buffer) {
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::Interrupted => return pass(from, to),
        Err(error) => return Err(error),
    };
    if count == 0 {
        // It may have left at the same moment.
        drop(to.shutdown(Shutdown::Write));
        return Ok(0);
    }
    write(to, &buffer[..count])?;
    Ok(count as u64)
}

fn write(to: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    { to }.write_all(bytes)
}
