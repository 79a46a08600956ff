-- How long answers took to begin, in microseconds, all together.
ALTER TABLE counters ADD COLUMN answer_us INTEGER NOT NULL DEFAULT 0;
