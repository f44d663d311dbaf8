-- Whom somebody has to call back (R5.2): an open ticket of calls that nobody has returned yet. Kept by
-- the database: a call finds its ticket in several places, and urgency and limit change where no
-- person does anything.
CREATE TABLE call_back (
    office_id    integer NOT NULL,
    ticket       bigint NOT NULL,
    state        text NOT NULL CHECK (state IN
                     ('waiting', 'withheld', 'reached', 'unreachable', 'wrong_number', 'over')),
    urgency      smallint NOT NULL,        -- as the ticket's
    due_at       timestamptz NOT NULL,     -- as the ticket's
    calls        integer NOT NULL DEFAULT 1,
    waits_since  timestamptz NOT NULL,     -- when the citizen spoke first
    next_try_at  timestamptz NOT NULL,
    tries        smallint NOT NULL DEFAULT 0,   -- that nobody answered, at different times (R7.d)
    counts_from  timestamptz,              -- from when a further one is at another time
    last_counted boolean NOT NULL DEFAULT false,   -- the last try is among them
    PRIMARY KEY (office_id, ticket)
) WITH (fillfactor = 70);
CREATE INDEX call_back_waiting ON call_back (office_id, urgency, due_at, waits_since, ticket)
    WHERE state = 'waiting';
CREATE INDEX call_back_withheld ON call_back (office_id, waits_since, ticket)
    WHERE state = 'withheld';
CREATE INDEX call_back_later ON call_back (office_id, next_try_at, ticket) WHERE state = 'waiting';

-- A call has its ticket, or its number came later.
CREATE FUNCTION call_waits() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    -- An exchange's clock may be ahead.
    spoken_at timestamptz := least(NEW.spoken_at, NEW.told_at);
BEGIN
    IF NEW.ticket IS DISTINCT FROM OLD.ticket THEN
        INSERT INTO call_back AS b
            (office_id, ticket, state, urgency, due_at, waits_since, next_try_at)
        SELECT t.office_id, t.ticket,
               CASE WHEN t.state IN ('resolved', 'evaluated', 'closed') THEN 'over'
                    WHEN NEW.caller IS NULL THEN 'withheld' ELSE 'waiting' END,
               t.urgency, t.due_at, spoken_at, spoken_at
        FROM ticket t WHERE t.office_id = NEW.office_id AND t.ticket = NEW.ticket
        -- Who calls again is there, whatever was tried before.
        ON CONFLICT (office_id, ticket) DO UPDATE SET calls = b.calls + 1,
            state = CASE WHEN excluded.state = 'over' THEN b.state
                         WHEN b.state = 'withheld' AND NEW.caller IS NULL THEN 'withheld'
                         ELSE 'waiting' END,
            waits_since = CASE WHEN b.state IN ('waiting', 'withheld')
                               THEN least(b.waits_since, spoken_at) ELSE spoken_at END,
            next_try_at = least(b.next_try_at, spoken_at),
            tries = CASE WHEN b.state = 'waiting' THEN b.tries ELSE 0 END;
    ELSE
        UPDATE call_back SET state = 'waiting'
        WHERE office_id = NEW.office_id AND ticket = NEW.ticket AND state = 'withheld';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER call_waits AFTER UPDATE OF ticket, caller ON call FOR EACH ROW
    WHEN (NEW.ticket IS NOT NULL AND (OLD.ticket IS DISTINCT FROM NEW.ticket
          OR OLD.caller IS NULL AND NEW.caller IS NOT NULL))
    EXECUTE FUNCTION call_waits();

-- The ticket goes on: what has a result needs no call of its own, until it is taken up again.
CREATE FUNCTION call_back_follows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE call_back SET urgency = NEW.urgency, due_at = NEW.due_at,
        state = CASE
            WHEN NEW.state IN ('resolved', 'evaluated', 'closed')
                THEN CASE WHEN state IN ('waiting', 'withheld') THEN 'over' ELSE state END
            WHEN state = 'over' AND OLD.state IN ('resolved', 'evaluated', 'closed')
                THEN CASE WHEN EXISTS (SELECT FROM call c WHERE c.office_id = NEW.office_id
                              AND c.ticket = NEW.ticket AND c.caller IS NOT NULL)
                     THEN 'waiting' ELSE 'withheld' END
            ELSE state END
    WHERE office_id = NEW.office_id AND ticket = NEW.ticket;
    RETURN NULL;
END $$;
CREATE TRIGGER call_back_follows AFTER UPDATE ON ticket FOR EACH ROW
    WHEN ((OLD.urgency, OLD.due_at, OLD.state) IS DISTINCT FROM (NEW.urgency, NEW.due_at, NEW.state))
    EXECUTE FUNCTION call_back_follows();

-- What was called before this list was there.
INSERT INTO call_back (office_id, ticket, state, urgency, due_at, calls, waits_since, next_try_at)
SELECT t.office_id, t.ticket, CASE WHEN c.known THEN 'waiting' ELSE 'withheld' END, t.urgency,
       t.due_at, c.calls, c.since, c.since
FROM (SELECT office_id, ticket, count(*) AS calls, min(spoken_at) AS since,
             bool_or(caller IS NOT NULL) AS known
      FROM call WHERE ticket IS NOT NULL GROUP BY office_id, ticket) c
JOIN ticket t ON t.office_id = c.office_id AND t.ticket = c.ticket
WHERE t.state IN ('registered', 'accepted', 'in_progress', 'awaiting_citizen');

-- Whom to telephone because nothing else arrived.
CREATE INDEX reply_to_call ON reply (office_id, ticket, reply_id) WHERE state = 'call';
