use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use crossbeam_channel::Receiver;

use super::*;
use crate::domain::*;
use crate::limits::*;
use crate::threads;

/// A directory of its own for one test, gone with it.
pub(super) struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Dir {
        let path = std::env::temp_dir().join(format!("muelle-store-{:016x}", getrandom::u64().unwrap()));
        Dir(path)
    }

    pub fn store(&self) -> Store {
        Store::open(&self.0).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

fn now() -> SystemTime {
    from_secs(1_800_000_000)
}

pub(super) fn new_user(email: &str) -> NewUser {
    NewUser {
        email: Email::parse(email).unwrap(),
        name: UserName::parse("Ana Pérez").unwrap(),
        password_hash: "hash".into(),
    }
}

pub(super) fn ana(store: &Store) -> User {
    store.create_user(new_user("ana@example.com"), Admit::Any, now()).unwrap()
}

fn new_project(owner: UserId, name: &str) -> NewProject {
    NewProject {
        owner,
        name: ProjectName::parse(name).unwrap(),
        source: Source::Image(ImageRef::parse("web:1").unwrap()),
        template: Some(Template::Flask),
        settings: Settings::default(),
        desired: Desired::Running,
    }
}

fn adopting(owner: UserId, name: &str, container: &str) -> NewProject {
    let source = Source::Container(ContainerName::parse(container).unwrap());
    NewProject { source, ..new_project(owner, name) }
}

fn env(bytes: usize) -> BTreeMap<EnvName, String> {
    BTreeMap::from([(EnvName::parse("BIG").unwrap(), "x".repeat(bytes))])
}

/// Runs `body` on `n` threads at once and returns what each came to.
fn at_once<T: Send + 'static>(n: usize, body: impl Fn(usize) -> T + Send + Sync + 'static) -> Vec<T> {
    let body = Arc::new(body);
    let start = Arc::new(std::sync::Barrier::new(n));
    let (send, receive) = bounded(n);
    let threads: Vec<_> = (0..n)
        .map(|i| {
            let (body, start, send) = (Arc::clone(&body), Arc::clone(&start), send.clone());
            let run = move || {
                start.wait();
                send.send(body(i)).unwrap();
            };
            threads::spawn("test", STACK_DEFAULT, run).unwrap()
        })
        .collect();
    drop((send, threads));
    receive.iter().collect()
}

/// Holds the store thread inside a job until the returned sender is used or dropped; returns once it is held.
fn hold(store: &Store) -> Sender<()> {
    let (release, released) = bounded::<()>(1);
    let (held, is_held) = bounded(1);
    let job = move |_: &Connection| {
        held.send(()).unwrap();
        released.recv_timeout(PATIENCE).ok();
        Ok(())
    };
    store.post(job, Box::new(drop)).unwrap();
    is_held.recv_timeout(PATIENCE).unwrap();
    release
}

fn answer<T: Send + 'static>() -> (Done<T>, Receiver<Result<T, Error>>) {
    let (send, receive) = bounded(1);
    (Box::new(move |r| drop(send.send(r))), receive)
}

/// A job that stores a word, and then fails if it is told to.
fn note(key: &'static str, fail: bool) -> impl FnOnce(&Connection) -> Result<(), Error> + Send {
    move |db| {
        db.execute("INSERT INTO meta VALUES (?1, 'x')", [key])?;
        if fail { Err(Error::NotFound) } else { Ok(()) }
    }
}

fn notes(store: &Store) -> Vec<String> {
    let sql = "SELECT key FROM meta WHERE value = 'x' ORDER BY key";
    rows(&store.reader().unwrap().db, sql, [], |row| Ok(row.get(0)?)).unwrap()
}

#[test]
fn what_is_stored_comes_back_as_it_was() {
    let dir = Dir::new();
    let store = dir.store();
    let user = ana(&store);
    let mut new = new_project(user.id, "Mi App");
    new.settings = Settings {
        port: Some(65535),
        env: BTreeMap::from([(EnvName::parse("A").unwrap(), "ñ \"quoted\"\n".into())]),
        memory_mb: Some(256),
        cpus: Some(0.5),
        idle_after: Some(IdleAfter::After(Duration::from_secs(1800))),
        domains: domains(&["a.example.com", "b.example.com"]),
        ..Settings::default()
    };
    let first = store.create_project(new.clone(), now(), |_| {}).unwrap();
    let second = store.create_project(adopting(user.id, "Base", "pg_1"), now(), |_| {}).unwrap();
    assert_eq!((&first.settings, first.host.as_str()), (&new.settings, "mi-app"));
    assert_eq!((first.created_at, first.traffic), (now(), Traffic::default()));
    let never = SettingsChange { idle_after: Some(IdleAfter::Never), ..SettingsChange::default() };
    let second = store.update_project(second.id, None, never, |_| {}).unwrap();
    let instance = store.instance().to_owned();
    assert_eq!(instance.len(), 8);
    drop(store);

    let store = dir.store();
    let reader = store.reader().unwrap();
    assert_eq!(reader.projects().unwrap(), [second, first], "newest first, also within a second");
    assert_eq!(reader.users().unwrap(), std::slice::from_ref(&user));
    assert_eq!(reader.user_by_email(&user.email).unwrap(), Some((user, "hash".into())));
    assert_eq!(reader.user_by_email(&Email::parse("x@y").unwrap()).unwrap(), None);
    assert_eq!(store.instance(), instance);
}

#[test]
fn case_150_times_before_1970_and_after_2038_are_kept() {
    for secs in [-1, 0, 1 << 31, 1 << 33, i64::MAX, i64::MIN + 1] {
        assert_eq!(to_secs(from_secs(secs)), secs);
    }
}

#[test]
fn case_52_of_two_first_accounts_at_once_one_is_the_administrator() {
    let dir = Dir::new();
    let store = Arc::new(dir.store());
    let both = Arc::clone(&store);
    let users =
        at_once(8, move |i| both.create_user(new_user(&format!("u{i}@x.org")), Admit::Any, now()).unwrap());
    assert_eq!(users.iter().filter(|u| u.admin).count(), 1);
}

#[test]
fn case_52_the_bootstrap_admits_only_the_first() {
    let dir = Dir::new();
    let store = Arc::new(dir.store());
    let both = Arc::clone(&store);
    let results =
        at_once(8, move |i| both.create_user(new_user(&format!("u{i}@x.org")), Admit::First, now()));
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    assert!(results.iter().filter_map(|r| r.as_ref().err()).all(|e| *e == Error::NotFirst));
    assert_eq!(store.reader().unwrap().users().unwrap().len(), 1);
}

#[test]
fn an_email_is_taken_whatever_its_case_and_labels_are_numbered() {
    let dir = Dir::new();
    let store = dir.store();
    let hosts: Vec<_> = ["ana@a.org", "Ana@b.org", "ána@c.org"]
        .map(|e| store.create_user(new_user(e), Admit::Any, now()).unwrap().host.as_str().to_owned())
        .into();
    assert_eq!(hosts, ["ana", "ana-2", "ana-3"]);
    let again = store.create_user(new_user("ANA@A.org"), Admit::Any, now());
    assert_eq!(again.unwrap_err(), Error::Taken(What::Email));
    store
        .call(|db| {
            let sql = "INSERT INTO users VALUES ('user-00000001', 'ANA@a.org', 'x', 'x', 'x', 0, 0)";
            assert_eq!(Error::from(db.execute(sql, []).unwrap_err()), Error::Taken(What::Email));
            Ok(())
        })
        .unwrap();
}

#[test]
fn case_62_names_are_unique_for_an_owner_and_labels_are_numbered() {
    let dir = Dir::new();
    let store = Arc::new(dir.store());
    let ana = ana(&store);
    let bea = store.create_user(new_user("bea@x.org"), Admit::Any, now()).unwrap();
    let both = Arc::clone(&store);
    let results = at_once(2, move |_| both.create_project(new_project(ana.id, "Mi App"), now(), |_| {}));
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    assert!(results.contains(&Err(Error::Taken(What::ProjectName))));

    let same_label = store.create_project(new_project(ana.id, "mi  app"), now(), |_| {}).unwrap();
    assert_eq!(same_label.host.as_str(), "mi-app-2");
    assert_eq!(
        store.create_project(new_project(bea.id, "Mi App"), now(), |_| {}).unwrap().host.as_str(),
        "mi-app"
    );
    for name in ["api", "WWW", "🚀"] {
        let refused = store.create_project(new_project(ana.id, name), now(), |_| {}).unwrap_err();
        assert!(matches!(&refused, Error::Invalid(i) if i.0.starts_with("Name ")), "{refused}");
    }
    let refused = store.create_user(new_user("www@x.org"), Admit::Any, now()).unwrap_err();
    assert!(matches!(&refused, Error::Invalid(i) if i.0.starts_with("Email ")), "{refused}");
}

#[test]
fn a_rename_keeps_the_label_and_meets_the_other_names() {
    let dir = Dir::new();
    let store = dir.store();
    let user = ana(&store);
    let project = store.create_project(new_project(user.id, "One"), now(), |_| {}).unwrap();
    store.create_project(new_project(user.id, "Two"), now(), |_| {}).unwrap();
    let name = |n| Some(ProjectName::parse(n).unwrap());
    let renamed = store.update_project(project.id, name("Uno"), SettingsChange::default(), |_| {}).unwrap();
    assert_eq!((renamed.name.as_str(), renamed.host.as_str()), ("Uno", "one"));
    let port = SettingsChange { port: Some(1), ..SettingsChange::default() };
    let refused = store.update_project(project.id, name("Two"), port, |_| {}).unwrap_err();
    assert_eq!(refused, Error::Taken(What::ProjectName));
    assert_eq!(store.reader().unwrap().projects().unwrap()[1].settings.port, None, "neither or both");
    let nobodys = store.update_project(ProjectId(1), name("X"), SettingsChange::default(), |_| {});
    assert_eq!(nobodys.unwrap_err(), Error::NotFound);
}

#[test]
fn two_changes_at_once_are_both_made_and_told_in_the_order_of_their_commits() {
    let dir = Dir::new();
    let store = Arc::new(dir.store());
    let user = ana(&store);
    let id = store.create_project(new_project(user.id, "One"), now(), |_| {}).unwrap().id;
    let (send, told) = bounded(100);
    let both = Arc::clone(&store);
    let results = at_once(50, move |n| {
        let name = EnvName::parse(&format!("V{n}")).unwrap();
        let change =
            SettingsChange { env: BTreeMap::from([(name, Some("x".into()))]), ..SettingsChange::default() };
        let send = send.clone();
        both.update_project(id, None, change, move |p| send.send(p.settings.env.len()).unwrap())
    });
    assert!(results.iter().all(Result::is_ok));
    let sizes: Vec<usize> = told.try_iter().collect();
    assert_eq!(sizes, (1..=50).collect::<Vec<_>>());
    assert_eq!(store.reader().unwrap().projects().unwrap()[0].settings.env.len(), 50);
}

fn domains(names: &[&str]) -> BTreeSet<Domain> {
    names.iter().map(|name| Domain::parse(name).unwrap()).collect()
}

#[test]
fn a_domain_is_one_projects_of_whichever_owner_until_that_gives_it_up_or_is_being_deleted() {
    let dir = Dir::new();
    let store = dir.store();
    let (ana, bea) = (ana(&store), store.create_user(new_user("bea@x.org"), Admit::Any, now()).unwrap());
    let with = |owner, names: &[&str]| {
        let mut new = new_project(owner, "App");
        new.settings.domains = domains(names);
        store.create_project(new, now(), |_| {})
    };
    let to = |id, names: &[&str]| {
        let change = SettingsChange { domains: Some(domains(names)), ..SettingsChange::default() };
        store.update_project(id, None, change, |_| {}).map(|project| project.settings.domains)
    };
    let hers = with(ana.id, &["a.example.com"]).unwrap().id;
    assert_eq!(with(bea.id, &["b.example.com", "a.example.com"]).unwrap_err(), Error::Taken(What::Domain));
    let other = with(bea.id, &["b.example.com"]).unwrap().id;
    assert_eq!(to(other, &["a.example.com"]).unwrap_err(), Error::Taken(What::Domain));
    let renamed = store.update_project(
        other,
        Some(ProjectName::parse("B").unwrap()),
        SettingsChange::default(),
        |_| {},
    );
    assert_eq!(renamed.unwrap().settings.domains, domains(&["b.example.com"]), "the others stay");
    assert_eq!(to(hers, &["c.example.com"]), Ok(domains(&["c.example.com"])));
    assert_eq!(to(other, &["a.example.com"]), Ok(domains(&["a.example.com"])));
    assert_eq!(
        to(hers, &["b.example.com", "c.example.com"]),
        Ok(domains(&["b.example.com", "c.example.com"]))
    );
    let (done, marked) = answer();
    store.try_mark_deleting(hers, done).unwrap();
    assert_eq!(marked.recv_timeout(PATIENCE).unwrap(), Ok(()));
    assert_eq!(to(other, &["c.example.com"]), Ok(domains(&["c.example.com"])));
    let (done, forgotten) = answer();
    store.try_forget(other, done).unwrap();
    assert_eq!(forgotten.recv_timeout(PATIENCE).unwrap(), Ok(()));
    let left = "SELECT count(*) FROM domains";
    let left = row(&store.reader().unwrap().db, left, [], |row| Ok(row.get::<_, u32>(0)?)).unwrap();
    assert_eq!(left, Some(0));
}

#[test]
fn a_container_is_adopted_once_until_its_project_is_being_deleted() {
    let dir = Dir::new();
    let store = dir.store();
    let user = ana(&store);
    let project = store.create_project(adopting(user.id, "One", "pg_1"), now(), |_| {}).unwrap();
    let again = store.create_project(adopting(user.id, "Two", "pg_1"), now(), |_| {}).unwrap_err();
    assert_eq!(again, Error::Taken(What::Container));

    let (done, marked) = answer();
    store.try_mark_deleting(project.id, done).unwrap();
    assert_eq!(marked.recv_timeout(PATIENCE).unwrap(), Ok(()));
    let heir = store.create_project(adopting(user.id, "One", "pg_1"), now(), |_| {}).unwrap();
    assert_eq!(heir.host, project.host, "name, label and container are free again");
    let gone = store.update_project(project.id, None, SettingsChange::default(), |_| {});
    assert_eq!(gone.unwrap_err(), Error::NotFound);

    assert_eq!(store.delete_user(user.id).unwrap_err(), Error::HasProjects(2));
    for id in [project.id, heir.id, ProjectId(1)] {
        let (done, forgotten) = answer();
        store.try_forget(id, done).unwrap();
        assert_eq!(forgotten.recv_timeout(PATIENCE).unwrap(), Ok(()), "{id}");
    }
    assert_eq!(store.reader().unwrap().projects().unwrap(), []);
    assert_eq!(store.delete_user(user.id), Ok(()));
    assert_eq!(store.delete_user(user.id), Err(Error::NotFound));
    assert_eq!(store.create_project(new_project(user.id, "X"), now(), |_| {}).unwrap_err(), Error::NotFound);
}

#[test]
fn what_the_owner_asks_for_ends_the_sleep() {
    let dir = Dir::new();
    let store = dir.store();
    let project = store.create_project(new_project(ana(&store).id, "One"), now(), |_| {}).unwrap();
    let held = Held { memory_mib: 90, cpu_milli: 2 };
    let set = |asleep: Option<Option<Held>>, desired| {
        let (done, result) = answer();
        match asleep {
            Some(asleep) => store.try_set_asleep(project.id, asleep, done).unwrap(),
            None => store.try_set_desired(project.id, desired, done).unwrap(),
        }
        result.recv_timeout(PATIENCE).unwrap().unwrap();
        let project = store.reader().unwrap().projects().unwrap().remove(0);
        (project.desired, project.asleep)
    };
    assert_eq!(set(Some(Some(held)), Desired::Running), (Desired::Running, Some(held)));
    assert_eq!(set(Some(None), Desired::Running), (Desired::Running, None));
    assert_eq!(set(Some(Some(held)), Desired::Running), (Desired::Running, Some(held)));
    assert_eq!(set(None, Desired::Stopped), (Desired::Stopped, None));
    let (done, result) = answer();
    store.try_set_desired(ProjectId(1), Desired::Running, done).unwrap();
    assert_eq!(result.recv_timeout(PATIENCE).unwrap(), Err(Error::NotFound));
}

#[test]
fn case_105_counters_add_up_and_those_of_lost_projects_are_dropped() {
    let dir = Dir::new();
    let store = dir.store();
    let project = store.create_project(new_project(ana(&store).id, "One"), now(), |_| {}).unwrap();
    let later = now() + Duration::from_secs(5);
    for (requests, last) in [(3, Some(later)), (4, Some(now())), (0, None)] {
        let (done, result) = answer();
        let mut added = Traffic { last, ..Traffic::default() };
        added.sums.iter_mut().enumerate().for_each(|(at, sum)| *sum = requests * (at as u64 + 1));
        store.try_add_traffic(vec![(project.id, added), (ProjectId(1), added)], done).unwrap();
        assert_eq!(result.recv_timeout(PATIENCE).unwrap(), Ok(()));
    }
    let counted = store.reader().unwrap().projects().unwrap().remove(0).traffic;
    let all = std::array::from_fn(|at| 7 * (at as u64 + 1));
    assert_eq!(counted, Traffic { sums: all, last: Some(now()) }, "the clock was set back");
}

#[test]
fn the_newest_wakes_are_kept_and_go_with_their_project() {
    let dir = Dir::new();
    let store = dir.store();
    let project = store.create_project(new_project(ana(&store).id, "One"), now(), |_| {}).unwrap();
    let wake = |n: u64| {
        let time = Duration::from_millis(n);
        Wake { start: time, ready: 2 * time, answer: n.is_multiple_of(2).then_some(3 * time) }
    };
    for n in 1..=u64::from(WAKES_KEPT) + 5 {
        let (done, result) = answer();
        store.try_add_wake(project.id, wake(n), now(), done).unwrap();
        assert_eq!(result.recv_timeout(PATIENCE).unwrap(), Ok(()));
    }
    let (done, result) = answer();
    store.try_add_wake(ProjectId(1), wake(1), now(), done).unwrap();
    assert_eq!(result.recv_timeout(PATIENCE).unwrap(), Ok(()), "one that is gone");
    let kept = store.reader().unwrap().wakes().unwrap();
    let newest: Vec<_> = (6..=u64::from(WAKES_KEPT) + 5).map(|n| (project.id, wake(n))).collect();
    assert_eq!(kept, newest);
    let (done, result) = answer();
    store.try_forget(project.id, done).unwrap();
    assert_eq!(result.recv_timeout(PATIENCE).unwrap(), Ok(()));
    assert_eq!(store.reader().unwrap().wakes().unwrap(), []);
}

#[test]
fn case_157_the_last_place_of_an_owner_is_given_once() {
    let dir = Dir::new();
    let store = Arc::new(dir.store());
    let user = ana(&store);
    for i in 1..PROJECTS_PER_USER {
        store.create_project(new_project(user.id, &format!("App {i}")), now(), |_| {}).unwrap();
    }
    let both = Arc::clone(&store);
    let results =
        at_once(2, move |i| both.create_project(new_project(user.id, &format!("Last {i}")), now(), |_| {}));
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    assert!(results.contains(&Err(Error::TooMany(PROJECTS_PER_USER))));
}

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_refresh_moves_the_session_on_and_the_token_before_works_for_a_minute() {
    let dir = Dir::new();
    let store = dir.store();
    let session = store.create_session(ana(&store).id, DAY, now()).unwrap().session;
    assert_eq!((session.generation, session.expires_at), (0, now() + DAY));
    let at = |s| now() + Duration::from_secs(s);
    let rotate = |generation, secs| store.rotate_session(session.id, generation, DAY, at(secs));

    let next = rotate(0, 10).unwrap();
    assert_eq!((next.generation, next.rotated_at, next.expires_at), (1, at(10), at(10) + DAY));
    assert_eq!(rotate(0, 70).unwrap(), next, "the other tab, within 60 s: nothing moves");
    assert_eq!(rotate(0, 71).unwrap_err(), Error::NotFound);
    assert_eq!(rotate(2, 11).unwrap_err(), Error::NotFound);
    assert_eq!(rotate(1, 20).unwrap().generation, 2);
    assert_eq!(rotate(0, 21).unwrap_err(), Error::NotFound);
    assert_eq!(rotate(2, 20 + 86_400).unwrap_err(), Error::NotFound, "it is over");
    assert_eq!(store.rotate_session(SessionId(1), 0, DAY, now()).unwrap_err(), Error::NotFound);
}

#[test]
fn two_tabs_that_refresh_at_once_both_succeed() {
    let dir = Dir::new();
    let store = Arc::new(dir.store());
    let session = store.create_session(ana(&store).id, DAY, now()).unwrap().session;
    let results = at_once(2, move |_| store.rotate_session(session.id, 0, DAY, now()).unwrap().generation);
    assert_eq!(results, [1, 1]);
}

#[test]
fn case_44_a_password_change_a_logout_and_a_deletion_end_the_sessions() {
    let dir = Dir::new();
    let store = dir.store();
    let user = ana(&store);
    let sessions = || store.reader().unwrap().sessions().unwrap();
    let open = || store.create_session(user.id, DAY, now()).unwrap().session;
    let (first, second) = (open(), open());
    assert_eq!(store.revoke_session(first.id), Ok(()));
    assert_eq!(store.revoke_session(first.id), Ok(()), "twice is fine");
    assert_eq!(sessions(), [second]);
    assert_eq!(store.set_password(user.id, "other".into()), Ok(()));
    assert_eq!(sessions(), []);
    assert_eq!(store.reader().unwrap().user_by_email(&user.email).unwrap().unwrap().1, "other");
    let third = open();
    assert_eq!(store.logout_user(user.id), Ok(vec![third.id]));
    open();
    assert_eq!(store.delete_user(user.id), Ok(()));
    assert_eq!(sessions(), []);
    assert_eq!(store.set_password(user.id, "x".into()), Err(Error::NotFound));
    assert_eq!(store.create_session(user.id, DAY, now()).unwrap_err(), Error::NotFound);
}

#[test]
fn sessions_are_bounded_and_purged() {
    let dir = Dir::new();
    let store = dir.store();
    let user = ana(&store);
    let first = store.create_session(user.id, DAY, now()).unwrap().session;
    for _ in 1..SESSIONS_PER_USER {
        let opened = store.create_session(user.id, DAY, now() + DAY).unwrap();
        assert_eq!(opened.revoked, []);
    }
    // The clock was set back meanwhile: the new session is not the one that goes.
    let before = now() - DAY;
    assert_eq!(store.create_session(user.id, DAY, before).unwrap().revoked, [first.id]);
    assert_eq!(store.purge_sessions(now()).unwrap().len(), 1);
    assert_eq!(store.purge_sessions(now() + 2 * DAY).unwrap().len(), SESSIONS_PER_USER as usize - 1);
}

#[test]
fn a_failing_or_panicking_job_undoes_only_itself() {
    let dir = Dir::new();
    let store = dir.store();
    let release = hold(&store);
    let results = [("a", false), ("b", true), ("c", false)].map(|(key, fail)| {
        let (done, result) = answer();
        store.post(note(key, fail), done).unwrap();
        result
    });
    let (done, panicked) = answer::<()>();
    store.post(|_| panic!("a defect"), done).unwrap();
    let (done, after) = answer();
    store.post(note("d", false), done).unwrap();
    store.post(note("e", false), Box::new(|_| panic!("a callback's defect"))).unwrap();
    drop(release);
    let results = results.map(|r| r.recv_timeout(PATIENCE).unwrap());
    assert_eq!(results, [Ok(()), Err(Error::NotFound), Ok(())]);
    assert!(panicked.recv_timeout(PATIENCE).is_err(), "its callback is dropped uncalled");
    assert_eq!(after.recv_timeout(PATIENCE).unwrap(), Ok(()));
    assert_eq!(store.ping(), Ok(()));
    assert_eq!(notes(&store), ["a", "c", "d", "e"]);
}

#[test]
fn nobody_is_told_of_success_when_the_commit_fails() {
    let dir = Dir::new();
    let store = dir.store();
    let release = hold(&store);
    let (done, innocent) = answer();
    store.post(note("a", false), done).unwrap();
    let (done, culprit) = answer();
    let violation = |db: &Connection| {
        db.execute_batch(
            "PRAGMA defer_foreign_keys = ON; INSERT INTO counters (project_id, requests, last_request) VALUES ('proj-00000001', 1, 1)",
        )?;
        Ok(())
    };
    store.post(violation, done).unwrap();
    drop(release);
    for result in [innocent, culprit] {
        assert!(matches!(result.recv_timeout(PATIENCE).unwrap(), Err(Error::Other(_))));
    }
    assert_eq!(store.call(note("b", false)), Ok(()));
    assert_eq!(notes(&store), ["b"]);
}

#[test]
fn a_full_queue_is_told_at_once_and_what_was_accepted_is_done() {
    let dir = Dir::new();
    let store = dir.store();
    let release = hold(&store);
    let (send, results) = bounded(STORE_QUEUE + 1);
    let mut accepted = 0;
    let full = loop {
        let send = send.clone();
        let done: Done<()> = Box::new(move |r| drop(send.send(r)));
        match store.try_forget(ProjectId(1), done) {
            Ok(()) => accepted += 1,
            Err(full) => break full,
        }
    };
    assert_eq!((full, accepted), (Full, STORE_QUEUE));
    drop((release, send));
    drop(store);
    assert_eq!(results.iter().flatten().count(), STORE_QUEUE, "a shutdown drains the queue");
}

#[test]
fn case_103_a_hundred_threads_write_and_none_meets_a_busy_file() {
    let dir = Dir::new();
    let store = Arc::new(dir.store());
    let user = ana(&store);
    let writer = Arc::clone(&store);
    let results = at_once(100, move |i| {
        (0..5)
            .map(|n| {
                let began = Instant::now();
                writer.create_session(user.id, DAY, now()).unwrap();
                writer.create_user(new_user(&format!("u{i}-{n}@x.org")), Admit::Any, now()).unwrap();
                began.elapsed() / 2
            })
            .collect::<Vec<_>>()
    });
    let mut waits: Vec<_> = results.into_iter().flatten().collect();
    waits.sort();
    println!("p50 {:?}, p99 {:?}", waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
    assert_eq!(store.reader().unwrap().users().unwrap().len(), 501);
}

#[test]
fn case_97_what_was_acknowledged_is_in_the_files_already() {
    let dir = Dir::new();
    let store = dir.store();
    let copy = Dir::new();
    drop(copy.store());
    let users: Vec<_> = (0..20)
        .map(|i| store.create_user(new_user(&format!("u{i}@x.org")), Admit::Any, now()).unwrap())
        .collect();
    // What a killed process leaves behind: the file and its journal, without a checkpoint.
    for name in ["muelle.db", "muelle.db-wal"] {
        fs::copy(dir.0.join(name), copy.0.join(name)).unwrap();
    }
    assert_eq!(copy.store().reader().unwrap().users().unwrap(), users);
}

#[test]
fn case_99_a_full_disk_is_told_leaves_no_half_and_is_survived() {
    let dir = Dir::new();
    let store = dir.store();
    let user = ana(&store);
    let pages = move |limit: u32| {
        move |db: &Connection| {
            let now: u32 = db.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            db.query_row(&format!("PRAGMA max_page_count = {}", now + limit), [], |_| Ok(()))?;
            Ok(())
        }
    };
    store.call(pages(40)).unwrap();
    let big = |i: usize| NewProject {
        settings: Settings { env: env(30_000), ..Settings::default() },
        ..new_project(user.id, &format!("App {i}"))
    };
    let mut stored = Vec::new();
    let refused = loop {
        match store.create_project(big(stored.len()), now(), |_| {}) {
            Ok(project) => stored.insert(0, project),
            Err(error) => break error,
        }
        assert!(stored.len() < 100, "the disk never fills");
    };
    assert_eq!(refused, Error::DiskFull);

    // In a batch: whoever is told of success is in the file, whoever is not is not.
    let release = hold(&store);
    let results = [(0, "a"), (30_000, "b"), (0, "c")].map(|(bytes, key)| {
        let (done, result) = answer();
        let write = move |db: &Connection| {
            db.execute("INSERT INTO meta VALUES (?1 || hex(zeroblob(?2)), 'x')", (key, bytes))?;
            Ok(())
        };
        store.post(write, done).unwrap();
        (key, result)
    });
    drop(release);
    let told: Vec<_> = results
        .iter()
        .filter(|(_, result)| match result.recv_timeout(PATIENCE).unwrap() {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error, Error::DiskFull);
                false
            }
        })
        .map(|(key, _)| *key)
        .collect();
    assert!(!told.contains(&"b"));
    assert_eq!(notes(&store), told);

    assert_eq!(store.reader().unwrap().projects().unwrap(), stored, "reads work");
    store.call(pages(10_000)).unwrap();
    stored.insert(0, store.create_project(big(99), now(), |_| {}).unwrap());
    assert_eq!(store.reader().unwrap().projects().unwrap(), stored);
    let check: String =
        store.call(|db| Ok(db.query_row("PRAGMA integrity_check", [], |r| r.get(0))?)).unwrap();
    assert_eq!(check, "ok");
}

/// A file system of 1 MiB, as root.
struct Small(Dir);

impl Small {
    /// Mounts one. Needs root: the names of such tests begin with `own_disk_`.
    fn mount(size: &str) -> Small {
        let dir = Dir::new();
        fs::create_dir(&dir.0).unwrap();
        fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o700)).unwrap();
        let options = format!("size={size},mode=700");
        assert!(
            run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", dir.0.to_str().unwrap()]),
            "root can mount"
        );
        Small(dir)
    }

    fn resize(&self, size: &str) {
        assert!(run("mount", &["-o", &format!("remount,size={size}"), self.0.0.to_str().unwrap()]));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &[self.0.0.to_str().unwrap()]);
    }
}

#[expect(clippy::disallowed_methods, reason = "a test may start programs")]
fn run(program: &str, args: &[&str]) -> bool {
    std::process::Command::new(program).args(args).output().is_ok_and(|o| o.status.success())
}

#[test]
fn own_disk_case_99_a_first_start_without_room_leaves_nothing_that_stands_in_the_way_later() {
    for kib in (40..400).step_by(24) {
        let small = Small::mount(&format!("{kib}k"));
        let opened = Store::open(&small.0.0).is_ok();
        small.resize("10m");
        let store = small.0.store();
        ana(&store);
        assert!(opened || kib < 300, "{kib} KiB are enough");
    }
}

#[test]
fn own_disk_case_90_a_database_on_a_full_disk_refuses_writes_until_space_returns() {
    let small = Small::mount("1m");
    let dir = &small.0;
    let store = dir.store();
    let user = ana(&store);
    let filler = dir.0.join("filler");
    let full = fs::write(&filler, vec![1; 2_000_000]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);

    let mut stored = Vec::new();
    let refused = loop {
        let mut new = new_project(user.id, &format!("App {}", stored.len()));
        new.settings.env = env(1000);
        match store.create_project(new, now(), |_| {}) {
            Ok(project) => stored.insert(0, project),
            Err(error) => break error,
        }
        assert!(stored.len() < 199, "the disk never fills");
    };
    assert_eq!(refused, Error::DiskFull);
    assert_eq!(store.reader().unwrap().projects().unwrap(), stored, "reads work");
    assert_eq!(store.revoke_session(SessionId(1)), Ok(()), "what writes nothing is no failure");

    fs::remove_file(&filler).unwrap();
    stored.insert(0, store.create_project(new_project(user.id, "Last"), now(), |_| {}).unwrap());
    drop(store);
    assert_eq!(dir.store().reader().unwrap().projects().unwrap(), stored);
}

#[test]
fn case_104_the_journal_is_cut_when_a_long_reader_has_gone() {
    let dir = Dir::new();
    let store = dir.store();
    let reader = store.reader().unwrap();
    reader.db.execute_batch("BEGIN; SELECT count(*) FROM users;").unwrap();
    let blob = i64::try_from(WAL_MAX_BYTES).unwrap() + 1_000_000;
    store
        .call(move |db| {
            db.execute_batch("CREATE TABLE scratch (b BLOB)")?;
            db.execute("INSERT INTO scratch VALUES (randomblob(?1))", [blob])?;
            Ok(())
        })
        .unwrap();
    let journal = dir.0.join("muelle.db-wal");
    let size = || fs::metadata(&journal).unwrap().len();
    assert!(size() > WAL_MAX_BYTES);
    reader.db.execute_batch("COMMIT").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while size() > WAL_MAX_BYTES {
        assert!(Instant::now() < deadline, "the journal still has {} bytes", size());
        store.ping().unwrap();
    }
}

#[test]
fn a_change_by_another_process_is_told() {
    let dir = Dir::new();
    let store = dir.store();
    let command_line = dir.store();
    let before = ana(&command_line);
    let (send, told) = bounded(8);
    store.on_foreign_change(Box::new(move || send.try_send(()).is_ok()));
    told.recv_timeout(PATIENCE).expect("a change made before anybody listened is told");
    command_line.logout_user(before.id).unwrap();
    command_line.set_password(before.id, "other".into()).unwrap();
    told.recv_timeout(PATIENCE).expect("a change is told");
}

#[test]
fn case_98_every_commit_is_on_the_disk_before_it_is_answered() {
    let dir = Dir::new();
    let store = dir.store();
    let synchronous =
        store.call(|db| Ok(db.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0))?));
    assert_eq!(synchronous, Ok(2), "FULL");
    let journal =
        store.call(|db| Ok(db.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0))?));
    assert_eq!(journal.as_deref(), Ok("wal"));
}

#[test]
fn case_37_sql_in_every_text_is_only_text() {
    let dir = Dir::new();
    let store = dir.store();
    let evil = "a'); DROP TABLE users;--";
    let mut new = new_user("o'x;--@x.org");
    new.name = UserName::parse(evil).unwrap();
    let user = store.create_user(new, Admit::Any, now()).unwrap();
    let mut new = new_project(user.id, evil);
    new.settings.env = BTreeMap::from([(EnvName::parse("A").unwrap(), evil.into())]);
    let project = store.create_project(new, now(), |_| {}).unwrap();
    assert_eq!(project.name.as_str(), evil);
    assert_eq!(store.reader().unwrap().user_by_email(&user.email).unwrap().unwrap().0, user);
    assert_eq!(store.reader().unwrap().projects().unwrap(), [project]);
}

fn from_git(owner: UserId, name: &str) -> NewProject {
    let source = Source::Git(RepoUrl::parse("https://example.com/ana/app", false).unwrap());
    NewProject { source, template: None, ..new_project(owner, name) }
}

fn deploy(store: &Store, id: ProjectId, cause: Cause) -> Result<Deployment, Error> {
    store
        .create_deployment(id, cause, Vec::new(), now(), |_| {})
        .map(|made| made.expect("no delivery is named"))
}

fn save(store: &Store, deployment: &Deployment, release: bool) -> Result<(), Error> {
    let (done, saved) = bounded(1);
    let tell = move |result| drop(done.send(result));
    store.try_save_deployment(deployment.clone(), release, Box::new(tell)).unwrap();
    saved.recv_timeout(PATIENCE).unwrap()
}

/// The same deployment, done, with an image.
fn ready(deployment: Deployment) -> Deployment {
    let number = deployment.number;
    let image = ImageRef::parse(&format!("muelle-x/app:{number}")).unwrap();
    Deployment {
        step: Step::Ready,
        outcome: deployment::Outcome::Ready,
        commit: Some("c0ffee".to_owned()),
        template: Some(Template::React),
        release: Some(Release { number, image, port: 8080, port_known: true }),
        residue: vec!["a1".to_owned(), "b2".to_owned()],
        ended_at: Some(now()),
        ..deployment
    }
}

#[test]
fn a_project_from_a_repository_begins_with_a_deployment_and_comes_back_as_it_was() {
    let dir = Dir::new();
    let store = dir.store();
    let settings = Settings {
        branch: Some(Branch::parse("main").unwrap()),
        health_path: Some(HealthPath::parse("/health").unwrap()),
        git_token: Some(Secret::parse("git_token", "ghp_canary").unwrap()),
        ..Settings::default()
    };
    let new = NewProject { settings: settings.clone(), ..from_git(ana(&store).id, "App") };
    let (told, first) = bounded(1);
    let project = store.create_project(new, now(), move |made| told.send(made.clone()).unwrap()).unwrap();
    let (told, first) = first.recv().unwrap();
    let first = first.expect("a first deployment");
    assert_eq!((told, project.settings.clone()), (project.clone(), settings));
    assert_eq!((first.number, first.cause, first.step), (1, Cause::Created, Step::Queued));
    assert!(project.release.is_none() && !project.template_chosen);
    let done = ready(first);
    save(&store, &done, true).unwrap();
    let stored = store.reader().unwrap().projects().unwrap().remove(0);
    assert_eq!((stored.release, stored.template), (done.release.clone(), Template::React));
    assert_eq!(store.reader().unwrap().deployment(project.id, 1).unwrap(), Some(done));
    let secret = Secret::parse("secret", "s3cret").unwrap();
    let with = store.set_hook_secret(project.id, Some(secret.clone()), |_| {}).unwrap();
    assert_eq!(with.hook_secret, Some(secret));
    assert_eq!(store.set_hook_secret(project.id, None, |_| {}).unwrap().hook_secret, None);
}

#[test]
fn case_54_a_deployment_that_waits_gives_way_to_a_newer_one_of_its_project() {
    let dir = Dir::new();
    let store = dir.store();
    let id = store.create_project(from_git(ana(&store).id, "App"), now(), |_| {}).unwrap().id;
    for _ in 0..50 {
        deploy(&store, id, Cause::Asked).unwrap();
    }
    let rows = store.reader().unwrap().deployments(id).unwrap();
    assert_eq!(rows.len(), 51);
    assert_eq!((rows[0].number, rows[0].outcome), (51, deployment::Outcome::Open));
    assert!(rows[1..].iter().all(|row| row.outcome == deployment::Outcome::Superseded));
    let (last, waiting) = store.reader().unwrap().recent_deployments().unwrap();
    assert_eq!((last[&id].number, waiting.len()), (51, 1));
}

#[test]
fn the_queue_of_deployments_is_bounded_and_who_goes_back_needs_no_place_in_it() {
    let dir = Dir::new();
    let store = dir.store();
    let owner = ana(&store).id;
    let make = |n: u32| store.create_project(from_git(owner, &format!("App {n}")), now(), |_| {});
    let first = make(0).unwrap().id;
    let rows = store.reader().unwrap().deployments(first).unwrap();
    save(&store, &ready(rows[0].clone()), true).unwrap();
    for n in 1..=DEPLOY_QUEUE {
        make(n).unwrap();
    }
    assert_eq!(make(99).unwrap_err(), Error::QueueFull);
    assert_eq!(
        store.reader().unwrap().projects().unwrap().len(),
        1 + DEPLOY_QUEUE as usize,
        "none was made by halves"
    );
    assert_eq!(deploy(&store, first, Cause::Asked).unwrap_err(), Error::QueueFull);
    assert_eq!(deploy(&store, first, Cause::Rollback(1)).unwrap().number, 2);
}

#[test]
fn one_goes_back_only_to_a_version_that_was_ready_and_whose_image_is_kept() {
    let dir = Dir::new();
    let store = dir.store();
    let id = store.create_project(from_git(ana(&store).id, "App"), now(), |_| {}).unwrap().id;
    assert!(matches!(deploy(&store, id, Cause::Rollback(1)), Err(Error::Invalid(_))), "it is not ready");
    let first = ready(store.reader().unwrap().deployments(id).unwrap().remove(0));
    save(&store, &first, true).unwrap();
    let again = deploy(&store, id, Cause::Rollback(1)).unwrap();
    let release = again.release.unwrap();
    assert_eq!((again.number, release.number, &release.image), (2, 2, &first.release.unwrap().image));
    assert_eq!(again.commit.as_deref(), Some("c0ffee"));
    assert!(matches!(deploy(&store, id, Cause::Rollback(9)), Err(Error::Invalid(_))));
    store.tidy_deployments(id, vec![1], 0).unwrap();
    assert!(matches!(deploy(&store, id, Cause::Rollback(1)), Err(Error::Invalid(_))), "its image is gone");
}

#[test]
fn case_106_what_was_under_way_is_interrupted_and_what_waited_waits_on() {
    let dir = Dir::new();
    let store = dir.store();
    let owner = ana(&store).id;
    let ids =
        ["One", "Two"].map(|name| store.create_project(from_git(owner, name), now(), |_| {}).unwrap().id);
    let mut under_way = store.reader().unwrap().deployments(ids[0]).unwrap().remove(0);
    under_way.step = Step::Build;
    save(&store, &under_way, false).unwrap();
    store.interrupt_deployments("ended", now()).unwrap();
    let (last, waiting) = store.reader().unwrap().recent_deployments().unwrap();
    assert_eq!(last[&ids[0]].outcome, deployment::Outcome::Interrupted);
    assert_eq!(last[&ids[0]].reason.as_deref(), Some("ended"));
    assert_eq!(waiting.iter().map(|it| it.project).collect::<Vec<_>>(), [ids[1]]);
}

#[test]
fn a_delivery_that_is_told_twice_deploys_once_and_old_ones_are_forgotten() {
    let dir = Dir::new();
    let store = dir.store();
    let id = store.create_project(from_git(ana(&store).id, "App"), now(), |_| {}).unwrap().id;
    let push = |name: &str| {
        store.create_deployment(id, Cause::Pushed, vec![name.to_owned()], now(), |_| {}).unwrap().is_some()
    };
    assert!(push("a"));
    assert!(!push("a"));
    for n in 0..DELIVERIES_KEPT {
        assert!(push(&format!("d{n}")));
    }
    assert!(!push(&format!("d{}", DELIVERIES_KEPT - 1)));
    assert!(push("a"), "it is not remembered for ever");
}

#[test]
fn a_deployment_needs_a_repository_and_a_project_that_is_not_deleted() {
    let dir = Dir::new();
    let store = dir.store();
    let owner = ana(&store).id;
    let image = store.create_project(new_project(owner, "Image"), now(), |_| {}).unwrap().id;
    assert_eq!(deploy(&store, image, Cause::Asked).unwrap_err(), Error::NotFound);
    let id = store.create_project(from_git(owner, "App"), now(), |_| {}).unwrap().id;
    let (done, marked) = bounded(1);
    store.try_mark_deleting(id, Box::new(move |result| drop(done.send(result)))).unwrap();
    marked.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(deploy(&store, id, Cause::Asked).unwrap_err(), Error::NotFound);
    assert_eq!(store.set_hook_secret(id, None, |_| {}).unwrap_err(), Error::NotFound);
}

#[test]
fn records_of_deployments_go_with_age_unless_their_image_is_kept() {
    let dir = Dir::new();
    let store = dir.store();
    let id = store.create_project(from_git(ana(&store).id, "App"), now(), |_| {}).unwrap().id;
    let first = ready(store.reader().unwrap().deployments(id).unwrap().remove(0));
    save(&store, &first, true).unwrap();
    for _ in 0..4 {
        deploy(&store, id, Cause::Asked).unwrap();
    }
    store.tidy_deployments(id, Vec::new(), 4).unwrap();
    let left: Vec<u32> =
        store.reader().unwrap().deployments(id).unwrap().iter().map(|it| it.number).collect();
    assert_eq!(left, [5, 4, 1]);
}
