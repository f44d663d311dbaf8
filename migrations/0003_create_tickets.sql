-- Tickets, what was said, what happened. A ticket's id is its register number as one bigint,
-- year * 1,000,000,000 + sequence: unique within the office, in order of registration (R7.1),
-- the key of everything that hangs on it, and time-ordered, so that indexes grow at one end.

-- The counter of an office and year. Taken once for a batch, held until COMMIT: no gap, no double.
CREATE TABLE register (
    office_id integer NOT NULL REFERENCES office,
    year      integer NOT NULL CHECK (year BETWEEN 2000 AND 2999),
    last      integer NOT NULL CHECK (last >= 0),
    PRIMARY KEY (office_id, year)
);

CREATE TABLE ticket (
    office_id        integer NOT NULL,                              -- known through register's key
    ticket           bigint NOT NULL CHECK (ticket % 1000000000 > 0),
    channel          text NOT NULL CHECK (channel IN ('wechat', 'hotline', 'window_phone', 'counter')),
    state            text NOT NULL CHECK (state IN ('registered', 'accepted', 'in_progress',
                         'awaiting_citizen', 'resolved', 'evaluated', 'closed')),
    -- Flips once, at closing. The only column of state that an index knows: everything before
    -- is a heap-only update.
    is_open          boolean NOT NULL GENERATED ALWAYS AS (state <> 'closed') STORED,
    state_data       jsonb NOT NULL DEFAULT '{}',                   -- what the state carries
    outcome          text CHECK (outcome IN ('solved', 'guided', 'conditionally_accepted', 'refused',
                         'out_of_scope', 'withdrawn', 'unreachable', 'duplicate')),
    level            smallint NOT NULL DEFAULT 1 CHECK (level IN (1, 3, 5)),
    cause            text CHECK (cause IN ('citizen', 'staff', 'objective')),
    urgency          smallint NOT NULL CHECK (urgency IN (0, 1)),   -- 0 an emergency (RD3.2), 1 ordinary
    overdue          boolean NOT NULL DEFAULT false,                -- past level 5's limit (R6)
    problem          text NOT NULL,                                 -- the first words, for lists
    citizen_name     text,
    citizen_phone    text,
    thread           text,
    registered_at    timestamptz NOT NULL,
    accepted_at      timestamptz NOT NULL,
    follow_up_at     timestamptz,
    due_at           timestamptz NOT NULL,
    provisional      boolean NOT NULL,
    needs_year       integer,
    calendar_version integer NOT NULL,
    accountable      integer,                                       -- fixed once (R7.e)
    events           integer NOT NULL CHECK (events > 0),           -- the newest event's number
    chain            bytea NOT NULL CHECK (length(chain) = 32),     -- and its hash
    PRIMARY KEY (office_id, ticket),
    CHECK (accepted_at >= registered_at),
    CHECK (due_at > accepted_at),
    CHECK (state <> 'closed' OR outcome IS NOT NULL),
    CHECK (NOT overdue OR level = 5)
) WITH (fillfactor = 85);

-- The queue, most urgent first.
CREATE INDEX ticket_queue ON ticket (office_id, urgency, due_at, ticket) WHERE is_open;

-- One row for each submission that any source ever delivered: the constraint that makes a repeat
-- find what the first delivery made (invariant 2). Source ids are time-ordered in practice.
CREATE TABLE inbound (
    office_id    integer NOT NULL,
    source       text NOT NULL,
    source_id    text NOT NULL,
    digest       bytea NOT NULL,       -- of the original: the same id with other content shows
    received_at  timestamptz NOT NULL,
    -- What became of it, and what the sender was told; a repeat is told the same.
    ticket       bigint,
    appended     boolean,
    came_in_at   timestamptz,
    follow_up_at timestamptz,
    due_at       timestamptz,
    provisional  boolean,
    quarantined  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (office_id, source, source_id)
) WITH (fillfactor = 70);   -- filled in within the same transaction: keep the second version near

-- Which ticket a citizen's messages grow. The row is the lock that makes a burst one ticket.
CREATE TABLE thread (
    office_id   integer NOT NULL,
    thread      text NOT NULL,
    open_ticket bigint,
    PRIMARY KEY (office_id, thread)
) WITH (fillfactor = 70);

CREATE TABLE message (
    office_id   integer NOT NULL,
    ticket      bigint NOT NULL,
    seq         integer NOT NULL,      -- of the event that records it
    source      text NOT NULL,
    source_id   text NOT NULL,
    occurred_at timestamptz NOT NULL,  -- by the source's clock
    received_at timestamptz NOT NULL,
    text        text NOT NULL,
    attachments jsonb,
    raw         bytea NOT NULL,        -- as verified, untouched; the event holds its digest
    PRIMARY KEY (office_id, ticket, seq)
);

CREATE TABLE event (
    office_id integer NOT NULL,
    ticket    bigint NOT NULL,
    seq       integer NOT NULL CHECK (seq > 0),
    at        timestamptz NOT NULL,
    actor     text NOT NULL,
    kind      text NOT NULL,
    data      json NOT NULL,           -- json, not jsonb: the hash covers the text as written
    hash      bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (office_id, ticket, seq)
);

-- RD4.2, invariant 5: the trail only grows.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is not allowed: the trail only grows', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER event_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Verified content that could not become a ticket: kept, shown to staff, replayable.
CREATE TABLE quarantine (
    office_id     integer NOT NULL,
    quarantine_id bigint GENERATED ALWAYS AS IDENTITY,
    source        text NOT NULL,
    source_id     text NOT NULL,
    reason        text NOT NULL,
    raw           bytea NOT NULL,
    submission    jsonb,               -- where it was understood, but the database refused it
    received_at   timestamptz NOT NULL,
    state         text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'discarded')),
    handled_by    text,
    handled_at    timestamptz,
    ticket        bigint,
    PRIMARY KEY (office_id, quarantine_id),
    UNIQUE (office_id, source, source_id)
);
CREATE INDEX quarantine_open ON quarantine (office_id, quarantine_id) WHERE state = 'open';
