-- Calls as their sources told of them, part by part, in any order. A call, its recordings and its
-- ticket are three things: a call that nobody needs to return has no ticket, several calls of one
-- caller share one (R5.2). Locks: after those of intake; `call`, then `call_recording`.

-- One call. `facts` holds everything that was told, put together by the gateway; the columns beside
-- it are what is looked for.
CREATE TABLE call (
    office_id   integer NOT NULL REFERENCES office,
    source      text NOT NULL,              -- hotline:pbx1
    call_key    text NOT NULL,              -- the call's identity there
    facts       jsonb NOT NULL,
    told        integer NOT NULL DEFAULT 1, -- how many times the facts were added to
    told_at     timestamptz NOT NULL,       -- when its first part came
    first_part  bytea NOT NULL,             -- and which it was (call_part)
    spoken_at   timestamptz NOT NULL,       -- by its source's clock where that can be believed
    line        text NOT NULL,              -- which of the office's numbers; empty until it is known
    caller      text,                       -- +8613900001234, or as written; null: withheld or not told
    outcome     text,
    -- Which ticket it grows, decided once: calls of one caller, line and closed period share a
    -- group, and a round of it until somebody has taken the ticket up.
    call_group  text,
    round       integer,
    ticket      bigint,
    -- What is to be done about it is looked at then; null: nothing more, until more is told.
    settle_at   timestamptz,
    PRIMARY KEY (office_id, source, call_key),
    CHECK ((call_group IS NULL) = (round IS NULL))
) WITH (fillfactor = 85);
CREATE INDEX call_to_settle ON call (settle_at) WHERE settle_at IS NOT NULL;
CREATE INDEX call_of_group ON call (office_id, call_group, round) WHERE call_group IS NOT NULL;
CREATE INDEX call_of_ticket ON call (office_id, ticket, spoken_at) WHERE ticket IS NOT NULL;

-- One recording. Its file is a medium of the ticket's message that tells of it.
CREATE TABLE call_recording (
    office_id     integer NOT NULL,
    source        text NOT NULL,
    recording_key text NOT NULL,
    call_key      text NOT NULL,
    state         text NOT NULL CHECK (state IN
                      ('announced', 'stored', 'absent', 'too_short', 'failed', 'expired')),
    ticket        bigint,
    seq           integer,
    hash          bytea,
    PRIMARY KEY (office_id, source, recording_key),
    FOREIGN KEY (office_id, source, call_key) REFERENCES call,
    FOREIGN KEY (office_id, hash) REFERENCES media_object,
    CHECK ((state = 'stored') = (hash IS NOT NULL)),
    CHECK ((ticket IS NULL) = (seq IS NULL))
) WITH (fillfactor = 85);
CREATE INDEX call_recording_of_call ON call_recording (office_id, source, call_key);
CREATE INDEX call_recording_of_message ON call_recording (office_id, ticket, seq)
    WHERE ticket IS NOT NULL;
CREATE INDEX call_recording_by_hash ON call_recording (office_id, hash) WHERE hash IS NOT NULL;

-- The originals, as verified: evidence, and what a better reader could be tried on. The same part
-- again is the same row.
CREATE TABLE call_part (
    office_id   integer NOT NULL REFERENCES office,
    source      text NOT NULL,
    digest      bytea NOT NULL CHECK (length(digest) = 32),
    calls       text[] NOT NULL,            -- which it tells of
    received_at timestamptz NOT NULL,
    raw         bytea NOT NULL,
    PRIMARY KEY (office_id, source, digest)
);

-- What becomes of the file, the recording knows with it.
CREATE FUNCTION media_of_recording() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE call_recording SET
        state = CASE NEW.state WHEN 'kept' THEN 'stored' WHEN 'expired' THEN 'expired'
                ELSE 'failed' END,
        hash = NEW.hash
    WHERE office_id = NEW.office_id AND ticket = NEW.ticket AND seq = NEW.seq;
    RETURN NULL;
END $$;
CREATE TRIGGER media_of_recording AFTER UPDATE OF state ON media FOR EACH ROW
    WHEN (NEW.source LIKE 'hotline:%' AND NEW.state <> 'waiting' AND NEW.n = 0)
    EXECUTE FUNCTION media_of_recording();
