-- Host names of a project's own. A name leads to one project.

CREATE TABLE domains (
    host TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX domains_by_project ON domains (project_id);
