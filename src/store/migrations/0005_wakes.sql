-- How long answers took to begin: each column counts those up to so many milliseconds that the column before does not.
ALTER TABLE counters ADD COLUMN ms_5 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN ms_10 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN ms_25 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN ms_50 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN ms_100 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN ms_250 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN ms_500 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN ms_1000 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN ms_2500 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN ms_5000 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN ms_10000 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN ms_more INTEGER NOT NULL DEFAULT 0;

-- What sleep was good for: wakes, MiB times seconds, and milliseconds of CPU time.
ALTER TABLE counters ADD COLUMN wakes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN saved_memory INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN saved_cpu INTEGER NOT NULL DEFAULT 0;

-- What a project that sleeps held in MiB, and used in thousandths of a CPU, before it was put to sleep.
ALTER TABLE projects ADD COLUMN held_memory INTEGER NOT NULL DEFAULT 0;
ALTER TABLE projects ADD COLUMN held_cpu INTEGER NOT NULL DEFAULT 0;

-- How long a project took to wake, in milliseconds from the request on: until its container was started, until it answered at its port,
-- and until its answer to that request began.
CREATE TABLE wakes (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    start_ms INTEGER NOT NULL,
    ready_ms INTEGER NOT NULL,
    answer_ms INTEGER
) STRICT;
CREATE INDEX wakes_by_project ON wakes (project_id);
