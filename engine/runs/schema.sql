-- The store of one run. The worker is its only writer; everyone else opens it read-only.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- The log that everything shown is folded from. Ordered by seq, never by time.
CREATE TABLE events (
    seq        INTEGER PRIMARY KEY,
    attempt    INTEGER NOT NULL,           -- 1 for the first worker, +1 for every resume
    time       REAL    NOT NULL,           -- seconds since 1970, for display only
    kind       TEXT    NOT NULL,
    step       INTEGER NOT NULL,           -- GRPO steps finished when it was written
    payload    TEXT    NOT NULL,           -- JSON object
    superseded INTEGER NOT NULL DEFAULT 0  -- 1: a resume went back before this step
) STRICT;

CREATE TABLE prompts (
    id      INTEGER PRIMARY KEY,
    text    TEXT NOT NULL,                 -- as the model saw it, chat template applied
    subject TEXT NOT NULL                  -- JSON object of the task: what was asked about
) STRICT;

CREATE TABLE rollouts (
    id         INTEGER PRIMARY KEY,
    attempt    INTEGER NOT NULL,
    step       INTEGER NOT NULL,
    grp        INTEGER NOT NULL,           -- group within the step, from 0
    sample     INTEGER NOT NULL,           -- completion within the group, from 0
    prompt_id  INTEGER NOT NULL REFERENCES prompts (id),
    completion TEXT    NOT NULL,
    tokens     INTEGER NOT NULL,
    finished   INTEGER NOT NULL,           -- 0: cut at the length limit
    reward     REAL    NOT NULL,
    advantage  REAL    NOT NULL,
    prediction TEXT    NOT NULL,           -- JSON object of the task: what was understood
    components TEXT    NOT NULL,           -- JSON list of {name, value, weight, reason}
    cited      TEXT    NOT NULL,           -- JSON list of [start, end] in the completion
    superseded INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX rollouts_by_step ON rollouts (step, grp, sample);

CREATE TABLE commands (
    id       TEXT PRIMARY KEY,             -- chosen by the sender: a repeat is not applied again
    time     REAL NOT NULL,
    verb     TEXT NOT NULL,
    args     TEXT NOT NULL,
    answered INTEGER NOT NULL DEFAULT 0,
    ok       INTEGER,
    answer   TEXT
) STRICT;
