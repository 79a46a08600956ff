-- Projects that are built from a repository. Their origin is its address.

ALTER TABLE projects ADD COLUMN branch TEXT;
ALTER TABLE projects ADD COLUMN git_token TEXT;
ALTER TABLE projects ADD COLUMN hook_secret TEXT;
ALTER TABLE projects ADD COLUMN health_path TEXT;
ALTER TABLE projects ADD COLUMN template_chosen INTEGER NOT NULL DEFAULT 0;
-- The number of the deployment whose version it runs.
ALTER TABLE projects ADD COLUMN release INTEGER;

CREATE TABLE deployments (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    cause TEXT NOT NULL,
    -- The deployment whose image is used again.
    cause_of INTEGER,
    step TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT,
    commit_id TEXT,
    template TEXT,
    -- What it built; NULL before that, and when it was removed.
    image TEXT,
    port INTEGER,
    port_known INTEGER NOT NULL DEFAULT 0,
    -- Ids of images, with spaces between.
    residue TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    ended_at INTEGER,
    PRIMARY KEY (project_id, number)
) STRICT;

-- What a repository's host told already.
CREATE TABLE deliveries (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    delivery TEXT NOT NULL,
    PRIMARY KEY (project_id, delivery)
) STRICT;
