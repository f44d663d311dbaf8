-- What a citizen's conversation needs beside the tickets: what is kept until words come, what we
-- asked last, which matter was closed lately. A row exists only for who needs one: a first message
-- that states something writes none.

-- What came without words, or right after its matter was closed: kept, answered, and joined to a
-- ticket when it is known to which; at the latest at the conversation's `by_itself_at`.
CREATE TABLE held (
    office_id   integer NOT NULL,
    thread      text NOT NULL,
    held_id     bigint GENERATED ALWAYS AS IDENTITY,
    submission  jsonb NOT NULL,        -- as its channel understood it, without the original
    raw         bytea NOT NULL,        -- the original
    digest      bytea NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (office_id, thread, held_id)
);

CREATE TABLE conversation (
    office_id     integer NOT NULL,
    thread        text NOT NULL,
    question      text CHECK (question IN ('old_or_new', 'grade', 'withdraw', 'what_is_new')),
    about         bigint,              -- the ticket that the question is about
    asked_at      timestamptz,
    held          integer NOT NULL DEFAULT 0 CHECK (held >= 0),
    by_itself_at  timestamptz,         -- when what is held is registered without words
    closed_ticket bigint,              -- the one that was closed last
    closed_at     timestamptz,
    beside        boolean NOT NULL DEFAULT false,   -- an open ticket was set aside for another one
    citizen_name  text,                -- as given for an earlier ticket (R7.2)
    citizen_phone text,
    scene         text,                -- the QR code by which they came last: a counter, a township
    PRIMARY KEY (office_id, thread),
    CHECK ((question IS NULL) = (about IS NULL) AND (question IS NULL) = (asked_at IS NULL)),
    CHECK ((held > 0) = (by_itself_at IS NOT NULL)),
    CHECK ((closed_ticket IS NULL) = (closed_at IS NULL))
) WITH (fillfactor = 85);
CREATE INDEX conversation_by_itself ON conversation (by_itself_at) WHERE by_itself_at IS NOT NULL;

-- A citizen can have several open matters; messages grow one of them.
ALTER TABLE ticket ADD COLUMN grows boolean NOT NULL DEFAULT true;
DROP INDEX ticket_thread;
CREATE UNIQUE INDEX ticket_thread ON ticket (office_id, thread)
    WHERE is_open AND grows AND thread IS NOT NULL;
CREATE INDEX ticket_thread_beside ON ticket (office_id, thread)
    WHERE is_open AND NOT grows AND thread IS NOT NULL;

-- What the sender was answered where it was no ticket's number, and whether it was asked for name
-- and telephone, and how its ticket stood when it grew: a repeat is answered in the same way.
ALTER TABLE inbound ADD COLUMN said jsonb, ADD COLUMN asks boolean,
    -- 1: the ticket waited for the citizen, 2: it was answered, 3: it was in hand, and the words gave
    -- a name or a telephone.
    ADD COLUMN stood smallint;

-- Grows with every turn of a conversation in the office: a batch that was decided without looking,
-- or looked before, notices that something was kept meanwhile (src/store/intake.rs).
ALTER TABLE register ADD COLUMN turns bigint NOT NULL DEFAULT 0;

ALTER TYPE intake_event ADD ATTRIBUTE asks boolean, ADD ATTRIBUTE effect_data jsonb,
    ADD ATTRIBUTE stood smallint;

-- Whoever closes a ticket: the citizen is asked about it for a while, and what was given for the
-- form is not asked for again.
CREATE FUNCTION remember_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO conversation AS c
        (office_id, thread, closed_ticket, closed_at, citizen_name, citizen_phone)
    SELECT NEW.office_id, NEW.thread, NEW.ticket, e.at, NEW.citizen_name, NEW.citizen_phone
    FROM event e
    WHERE e.office_id = NEW.office_id AND e.ticket = NEW.ticket AND e.seq = NEW.events
    ON CONFLICT (office_id, thread) DO UPDATE
        SET closed_ticket = excluded.closed_ticket, closed_at = excluded.closed_at,
            citizen_name = coalesce(excluded.citizen_name, c.citizen_name),
            citizen_phone = coalesce(excluded.citizen_phone, c.citizen_phone);
    RETURN NULL;
END $$;
CREATE TRIGGER ticket_closed AFTER UPDATE ON ticket FOR EACH ROW
    WHEN (OLD.state <> 'closed' AND NEW.state = 'closed' AND NEW.thread IS NOT NULL)
    EXECUTE FUNCTION remember_closed();

-- A closed ticket that is taken up again stands beside the one that grows, where there is one.
CREATE FUNCTION place_reopened() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.grows := NOT EXISTS (SELECT FROM ticket t
        WHERE t.office_id = NEW.office_id AND t.thread = NEW.thread AND t.is_open AND t.grows
          AND t.thread IS NOT NULL);
    UPDATE conversation c SET beside = c.beside OR NOT NEW.grows,
        closed_ticket = CASE WHEN c.closed_ticket <> NEW.ticket THEN c.closed_ticket END,
        closed_at = CASE WHEN c.closed_ticket <> NEW.ticket THEN c.closed_at END
    WHERE c.office_id = NEW.office_id AND c.thread = NEW.thread;
    RETURN NEW;
END $$;
CREATE TRIGGER ticket_reopened BEFORE UPDATE ON ticket FOR EACH ROW
    WHEN (OLD.state = 'closed' AND NEW.state <> 'closed' AND NEW.thread IS NOT NULL)
    EXECUTE FUNCTION place_reopened();
