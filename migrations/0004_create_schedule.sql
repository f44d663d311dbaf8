-- What is due when. These rows are the truth; Redis holds their ids, ordered by time, and may be
-- lost at any moment (scheduling.md B5).

CREATE TABLE timer (
    office_id integer NOT NULL,
    ticket    bigint NOT NULL,
    kind      smallint NOT NULL CHECK (kind BETWEEN 1 AND 4),  -- follow-up, warning, limit, overdue
    gen       integer NOT NULL CHECK (gen > 0),                -- grows with every change: the fence
    state     smallint NOT NULL CHECK (state IN (0, 1, 2)),    -- armed, fired, cancelled
    due_at    timestamptz NOT NULL,
    PRIMARY KEY (office_id, ticket, kind)
) WITH (fillfactor = 80);
CREATE INDEX timer_armed ON timer (due_at) WHERE state = 0;

-- The generation of the Redis schedule that was last filled to the end; another one in Redis
-- (or none) means: rebuild.
CREATE TABLE schedule_epoch (
    shard smallint PRIMARY KEY,
    epoch bigint NOT NULL
);

-- Work that one replica does at a time. A row, not an advisory lock: those break behind poolers.
CREATE TABLE lease (
    name  text PRIMARY KEY,
    owner text NOT NULL,
    until timestamptz NOT NULL
);
