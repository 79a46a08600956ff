-- What passed to an app, beside the number of requests. The classes are those of the status: 1xx (tunnels) to 5xx.

ALTER TABLE counters ADD COLUMN bytes_in INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN bytes_out INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN class_1 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN class_2 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN class_3 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN class_4 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN class_5 INTEGER NOT NULL DEFAULT 0;
