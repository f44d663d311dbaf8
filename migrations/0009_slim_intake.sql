-- What a submission writes, without what it wrote twice: its sender waits for every byte and index.

-- Which ticket a citizen's messages grow: the open one of the thread, and there is one at most. This
-- index is what makes a burst one ticket; the table that said the same beside it goes.
CREATE UNIQUE INDEX ticket_thread ON ticket (office_id, thread) WHERE is_open AND thread IS NOT NULL;
DROP TABLE thread;

-- Which message a submission became. Its identity stands in `inbound` alone.
ALTER TABLE inbound ADD COLUMN seq integer;
UPDATE inbound b SET seq = m.seq FROM message m
    WHERE m.office_id = b.office_id AND m.ticket = b.ticket
      AND m.source = b.source AND m.source_id = b.source_id;
ALTER TABLE message DROP COLUMN source, DROP COLUMN source_id;

-- Rows of it are written once and whole.
ALTER TABLE inbound SET (fillfactor = 100);
ALTER TABLE outbox ALTER COLUMN data SET DEFAULT '{}';

-- A batch as the gateway hands it over, row by row: see src/store/intake.rs.
CREATE TYPE intake_ticket AS (
    office_id integer, ticket bigint, channel text, state text, urgency smallint, problem text,
    citizen_name text, citizen_phone text, thread text, registered_at timestamptz,
    accepted_at timestamptz, follow_up_at timestamptz, warn_at timestamptz, due_at timestamptz,
    provisional boolean, needs_year integer, calendar_version integer, accountable integer,
    events integer, chain bytea
);
CREATE TYPE intake_event AS (
    office_id integer, ticket bigint, seq integer, at timestamptz, actor text, kind text, data text,
    hash bytea, occurred_at timestamptz, text text, attachments jsonb, raw bytea, source text,
    source_id text, digest bytea, appended boolean, follow_up_at timestamptz, due_at timestamptz,
    provisional boolean, effect text, effect_urgent boolean, effect_not_before timestamptz
);
