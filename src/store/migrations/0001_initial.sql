-- Times are seconds since 1970, UTC.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    email TEXT NOT NULL UNIQUE COLLATE NOCASE,
    name TEXT NOT NULL,
    host TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    admin INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    refresh_generation INTEGER NOT NULL,
    rotated_at INTEGER NOT NULL
) STRICT;

CREATE INDEX sessions_by_user ON sessions (user_id);

CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL REFERENCES users (id),
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    source TEXT NOT NULL,
    -- What the source's word speaks of: the image's reference or the container's name.
    origin TEXT NOT NULL,
    template TEXT NOT NULL,
    port INTEGER,
    -- A JSON object of strings.
    env TEXT NOT NULL,
    memory_mb INTEGER,
    cpus REAL,
    -- Seconds; -1 is never; NULL where the owner did not say.
    idle_after INTEGER,
    desired TEXT NOT NULL,
    asleep INTEGER NOT NULL DEFAULT 0,
    deleting INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
) STRICT;

-- A project that is being deleted is in nobody's way any more.
CREATE UNIQUE INDEX projects_name ON projects (owner, name) WHERE deleting = 0;
CREATE UNIQUE INDEX projects_host ON projects (owner, host) WHERE deleting = 0;
CREATE UNIQUE INDEX projects_adopted ON projects (origin) WHERE source = 'container' AND deleting = 0;

CREATE TABLE counters (
    project_id TEXT PRIMARY KEY REFERENCES projects (id) ON DELETE CASCADE,
    requests INTEGER NOT NULL,
    last_request INTEGER NOT NULL
) STRICT;
