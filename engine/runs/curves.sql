-- What makes a long log quick to read. Derived from `events` alone, so that whoever does not know
-- it loses nothing: readers without it fold all events, and a store without it is given it by the
-- next worker that opens it.

-- The newest events of a kind, and those of some steps.
CREATE INDEX events_by_kind ON events (kind, step) WHERE superseded = 0;

-- Every metric over every 16 steps. Bucket b holds steps 16 b + 1 to 16 b + 16, and is written once
-- a later step has come. `meta` holds, as `curves`, the first bucket that is not there yet.
CREATE TABLE curves (
    name   TEXT    NOT NULL,               -- flat name; those of a validation as validation/...
    bucket INTEGER NOT NULL,
    count  INTEGER NOT NULL,               -- values in the bucket
    low    REAL    NOT NULL,
    high   REAL    NOT NULL,
    total  REAL    NOT NULL,               -- their sum
    PRIMARY KEY (name, bucket)
) STRICT, WITHOUT ROWID;
