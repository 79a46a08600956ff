use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::store::Store;
use crate::store::tests::{Dir, ana};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// A data directory with one user in it, closed.
fn filled() -> (Dir, PathBuf) {
    let dir = Dir::new();
    ana(&dir.store());
    let path = dir.0.join(FILE);
    (dir, path)
}

fn refusal(dir: &Dir) -> OpenError {
    Store::open(&dir.0).map(|_| ()).expect_err("it was opened")
}

#[test]
fn a_new_database_is_private_and_nothing_else_stays_behind() {
    let (dir, path) = filled();
    assert_eq!((mode(&dir.0), mode(&path)), (0o700, 0o600));
    let store = dir.store();
    assert_eq!(store.reader().unwrap().users().unwrap().len(), 1);
    assert_eq!(mode(&suffixed(&path, "-wal")), 0o600);
    drop(store);
    let names: Vec<_> = fs::read_dir(&dir.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, [FILE]);
}

#[test]
fn two_processes_that_make_the_database_at_once_share_one() {
    let dir = Dir::new();
    let (a, b) = (dir.store(), dir.store());
    assert_eq!(a.instance(), b.instance());
    let user = ana(&a);
    assert_eq!(b.reader().unwrap().users().unwrap(), [user]);
    check_dir(&dir.0).unwrap();
    create(&dir.0, &dir.0.join(FILE)).unwrap();
    assert_eq!(dir.store().instance(), a.instance(), "one that is there is never replaced");
}

#[test]
fn case_100_a_damaged_or_foreign_file_is_refused_and_left_alone() {
    let (_dir, path) = filled();
    let good = fs::read(path).unwrap();
    let truncated = |n: usize| good[..n].to_vec();
    let mut flipped = good.clone();
    flipped[4096..5120].iter_mut().for_each(|b| *b ^= 0xff);
    let mut headless = good.clone();
    headless[..16].fill(0);
    for (what, bytes) in [
        ("zero bytes", Vec::new()),
        ("one byte", vec![b'S']),
        ("text", b"this is not a database, and never was one\n".repeat(200)),
        ("zeros", vec![0; 8192]),
        ("cut in a page", truncated(good.len() - 100)),
        ("cut at a page", truncated(good.len() - 4096)),
        ("only a header", truncated(100)),
        ("a flipped KiB", flipped),
        ("no magic", headless),
    ] {
        let dir = Dir::new();
        DirBuilder::new().mode(0o700).create(&dir.0).unwrap();
        let path = dir.0.join(FILE);
        fs::write(&path, &bytes).unwrap();
        let said = Store::open(&dir.0).err().unwrap_or_else(|| panic!("{what} was opened")).to_string();
        assert!(said.contains("muelle.db") && said.contains("backup"), "{what}: {said}");
        assert!(fs::read(&path).unwrap() == bytes, "{what}: the file was changed");
    }
}

/// SQLite keeps no checksums, so damage inside a value cannot be seen; what a walk through the structure can see is refused.
#[test]
fn case_100_any_flipped_kib_is_refused_or_was_unused_or_reads_as_an_error() {
    let (_dir, path) = filled();
    let good = fs::read(&path).unwrap();
    let mut refused = 0;
    for start in (0..good.len()).step_by(1024) {
        let dir = Dir::new();
        DirBuilder::new().mode(0o700).create(&dir.0).unwrap();
        let path = dir.0.join(FILE);
        let mut bytes = good.clone();
        bytes[start..start + 1024].iter_mut().for_each(|b| *b ^= 0xff);
        fs::write(&path, &bytes).unwrap();
        match Store::open(&dir.0) {
            Err(_) => {
                refused += 1;
                assert!(fs::read(&path).unwrap() == bytes, "changed at {start}");
            }
            Ok(store) => {
                let users = store.reader().unwrap().users().unwrap();
                assert_eq!(users.len(), 1, "lost at {start}");
                assert_eq!(users[0].email.as_str(), "ana@example.com", "falsified at {start}");
            }
        }
    }
    assert!(refused >= good.len() / 4096, "{refused} refused: fewer than there are pages");
}

#[test]
fn case_100_a_newer_or_foreign_schema_is_refused() {
    let (dir, path) = filled();
    let set = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    set("PRAGMA user_version = 99");
    let before = fs::read(&path).unwrap();
    let error = refusal(&dir);
    assert!(matches!(&error, OpenError::Newer { found: 99, known: KNOWN, .. }), "{error}");
    assert!(error.to_string().contains(&format!("muelle.db.v{KNOWN}.bak")), "{error}");
    set("PRAGMA user_version = 0");
    assert!(matches!(refusal(&dir), OpenError::Damaged { .. }));
    set("PRAGMA user_version = 99");
    assert!(fs::read(&path).unwrap().len() == before.len());
}

#[test]
fn case_100_a_journal_without_its_database_is_not_started_over() {
    let (dir, path) = filled();
    fs::rename(&path, suffixed(&path, "-wal")).unwrap();
    assert!(refusal(&dir).to_string().contains("is missing"));
    assert!(!path.exists());
}

#[test]
fn case_101_an_unfit_directory_is_refused_with_the_reason() {
    let (dir, path) = filled();
    let link = Dir::new();
    symlink(&dir.0, &link.0).unwrap();
    assert!(refusal(&link).to_string().contains("symbolic link"));
    fs::remove_file(&link.0).unwrap();

    for (bits, word) in [(0o500, "read-only"), (0o777, "by others"), (0o720, "by others")] {
        fs::set_permissions(&dir.0, fs::Permissions::from_mode(bits)).unwrap();
        let said = refusal(&dir).to_string();
        assert!(said.contains(word) && said.contains(dir.0.to_str().unwrap()), "{bits:o}: {said}");
    }
    fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o755)).unwrap();
    drop(dir.store());

    let below_a_file = Dir(path.join("data"));
    assert!(matches!(refusal(&below_a_file), OpenError::Dir { .. }));
    let elsewhere = suffixed(&path, ".elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(refusal(&dir).to_string().contains("not a regular file"));
    assert_eq!(network_file_system(0x6969), Some("NFS"));
    assert_eq!(network_file_system(0xef53), None, "ext4");
}

#[test]
fn case_101_a_directory_of_another_user_is_refused() {
    let dir = Dir::new();
    DirBuilder::new().mode(0o700).create(&dir.0).unwrap();
    if std::os::unix::fs::chown(&dir.0, Some(12345), None).is_err() {
        println!("not root: nothing can be given away");
        return;
    }
    let said = refusal(&dir).to_string();
    assert!(said.contains("belongs to user 12345"), "{said}");
}

/// The schema that this version knows.
const KNOWN: usize = MIGRATIONS.len();

/// What a later version could bring.
const NEXT: &str = "ALTER TABLE users ADD COLUMN nick TEXT; CREATE TABLE extra (id INTEGER) STRICT;";

fn with_next(next: &'static str) -> Vec<&'static str> {
    MIGRATIONS.iter().copied().chain([next]).collect()
}

#[test]
fn case_117_every_older_schema_is_copied_and_migrated_to_the_present_one() {
    for version in 1..KNOWN {
        let dir = Dir::new();
        let path = dir.0.join(FILE);
        DirBuilder::new().mode(0o700).create(&dir.0).unwrap();
        create_private(&path).unwrap();
        let mut db = connect(&path).unwrap();
        migrate(&mut db, &MIGRATIONS[..version]).unwrap();
        db.execute_batch(
            "INSERT INTO users VALUES ('user-00000001', 'ana@example.com', 'Ana', 'ana', 'hash', 1, 0);
             INSERT INTO projects (id, owner, name, host, source, origin, template, env, desired, created_at)
             VALUES ('proj-00000001', 'user-00000001', 'App', 'app', 'image', 'web:1', 'flask', '{}', 'running', 0)",
        )
        .unwrap();
        drop(db);
        let store = dir.store();
        let project = store.reader().unwrap().projects().unwrap().remove(0);
        assert_eq!((project.name.as_str(), project.release), ("App", None));
        assert_eq!(project.settings, crate::domain::Settings::default());
        assert!(suffixed(&path, &format!(".v{version}.bak")).exists());
    }
}

#[test]
fn case_117_an_older_schema_is_copied_and_migrated() {
    let (dir, path) = filled();
    let bak = format!(".v{KNOWN}.bak");
    fs::write(suffixed(&path, &format!("{bak}.tmp")), "half a copy of a start that was killed").unwrap();
    let (db, _) = open_with(&path, &with_next(NEXT)).unwrap();
    db.execute_batch("SELECT nick FROM users; SELECT * FROM extra").unwrap();
    drop(db);
    assert!(matches!(refusal(&dir), OpenError::Newer { found, known: KNOWN, .. } if found == KNOWN + 1));

    let copy = suffixed(&path, &bak);
    assert_eq!(mode(&copy), 0o600);
    fs::rename(&copy, &path).unwrap();
    assert_eq!(dir.store().reader().unwrap().users().unwrap().len(), 1, "the way back works");
}

#[test]
fn case_102_a_migration_killed_half_way_leaves_the_old_schema_and_runs_again() {
    let (dir, path) = filled();
    let killed = Dir::new();
    DirBuilder::new().mode(0o700).create(&killed.0).unwrap();
    {
        let mut db = connect(&path).unwrap();
        let tx = db.transaction().unwrap();
        tx.execute_batch(NEXT).unwrap();
        // Everything into the files that can go there before the commit.
        tx.execute_batch(
            "PRAGMA cache_spill = 1; PRAGMA cache_size = 1; UPDATE users SET nick = hex(randomblob(100000))",
        )
        .unwrap();
        for name in ["muelle.db", "muelle.db-wal"] {
            fs::copy(dir.0.join(name), killed.0.join(name)).unwrap();
        }
    }
    drop(killed.store());
    let path = killed.0.join(FILE);
    assert!(open_with(&path, &with_next("CREATE TABLE extra (id INTEGER); nonsense")).is_err());
    assert_eq!(killed.store().reader().unwrap().users().unwrap().len(), 1);
    let (db, _) = open_with(&path, &with_next(NEXT)).unwrap();
    db.execute_batch("SELECT nick FROM users; SELECT * FROM extra").unwrap();
}

#[test]
fn case_108_a_second_server_is_told_at_once_and_the_command_line_is_not() {
    let dir = Dir::new();
    let lock = DirLock::take(&dir.0).unwrap();
    let _server = dir.store();
    assert!(matches!(DirLock::take(&dir.0), Err(OpenError::Held { .. })));
    ana(&dir.store());
    drop(lock);
    DirLock::take(&dir.0).unwrap();
}

#[test]
fn a_backup_is_whole_private_and_never_writes_over_a_file() {
    let dir = Dir::new();
    let store = dir.store();
    let user = ana(&store);
    let target = dir.0.join("backup");
    backup(&dir.0, &target).unwrap();
    assert_eq!(mode(&target), 0o600);
    assert!(matches!(backup(&dir.0, &target), Err(BackupError::Exists(_))));
    assert!(matches!(backup(&dir.0, &dir.0.join("no/such/place")), Err(BackupError::Other { .. })));
    let instance = store.instance().to_owned();
    drop(store);
    backup(&dir.0, &dir.0.join("of-a-stopped-server")).unwrap();

    let elsewhere = Dir::new();
    assert!(matches!(backup(&elsewhere.0, &target), Err(BackupError::Missing(_))));
    DirBuilder::new().mode(0o700).create(&elsewhere.0).unwrap();
    fs::rename(&target, elsewhere.0.join(FILE)).unwrap();
    let restored = elsewhere.store();
    assert_eq!((restored.instance(), restored.reader().unwrap().users().unwrap()), (&*instance, vec![user]));
}
