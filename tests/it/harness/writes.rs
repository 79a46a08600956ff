//! Writers that a kill interrupts: what was acknowledged has to be there afterwards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Client, Server, eventually};

/// Renames each project over and over, one thread each; once `enough` renames of each are acknowledged, kills the server, starts it again
/// and compares. Gives how long that start took. `client` is the same person's at the new address afterwards.
#[track_caller]
pub fn interrupted(
    server: &mut Server,
    client: &mut Client,
    ids: &[String],
    round: u64,
    enough: u64,
) -> Duration {
    let acknowledged: Vec<AtomicU64> = ids.iter().map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for (id, last) in ids.iter().zip(&acknowledged) {
            let client = client.clone();
            scope.spawn(move || {
                for n in 1.. {
                    let name = json!({"name": format!("{id} {round} {n}")});
                    let answer = client.try_send("PATCH", &format!("/api/projects/{id}"), &name);
                    if !answer.is_ok_and(|answer| answer.status == 200) {
                        return;
                    }
                    last.store(n, Ordering::Release);
                }
            });
        }
        eventually("enough writes are acknowledged", Duration::from_secs(20), || {
            let least =
                acknowledged.iter().map(|last| last.load(Ordering::Acquire)).min().unwrap_or_default();
            if least >= enough { Ok(()) } else { Err(least) }
        });
        server.kill();
    });
    let began = Instant::now();
    server.run();
    let took = began.elapsed();
    *client = client.with_base(&server.base);
    for (id, last) in ids.iter().zip(&acknowledged) {
        let last = last.load(Ordering::Acquire);
        let project = client.get(&format!("/api/projects/{id}")).ok(200);
        let name = project["project"]["name"].as_str().unwrap().to_owned();
        let kept: u64 = name.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(name.starts_with(&format!("{id} {round} ")), "{name}");
        assert!(kept == last || kept == last + 1, "{last} was acknowledged, {kept} is there");
    }
    took
}

/// What SQLite itself says of the database, when nobody uses it.
#[track_caller]
pub fn assert_intact(server: &Server) {
    let db = rusqlite::Connection::open(server.data().join("muelle.db")).unwrap();
    let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}
