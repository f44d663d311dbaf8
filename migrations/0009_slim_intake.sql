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
