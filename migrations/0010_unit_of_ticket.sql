-- The unit that a matter was referred to last (R7.b, R7.c), and lists of what is in somebody's hands.

ALTER TABLE ticket ADD COLUMN unit integer;   -- null until the first referral

-- What has been taken up and is open, most urgent first: of each person, of each unit, in each
-- state. No indexes of ticket, on purpose: an update is heap-only as long as no column of any index
-- changes, so that an index with accountable, unit or state, however partial, would make each step
-- that staff take write every index of the ticket anew. Here it writes one narrow row. What nobody
-- has taken up is in none of these lists: what a citizen writes enters nothing.
CREATE TABLE in_hand (
    office_id integer NOT NULL,
    list      text NOT NULL CHECK (list IN ('person', 'unit', 'accepted', 'in_progress',
                  'awaiting_citizen', 'resolved', 'evaluated')),
    whose     integer NOT NULL,        -- which person, which unit; 0 in a list of a state
    urgency   smallint NOT NULL,
    due_at    timestamptz NOT NULL,
    ticket    bigint NOT NULL,
    PRIMARY KEY (office_id, list, whose, urgency, due_at, ticket)
);

-- The lists that a ticket belongs in as it stands. A body as text: PostgreSQL 15.20 refuses to
-- add a column to a table whose row a parsed body (BEGIN ATOMIC) reads; 15.18 did not.
CREATE FUNCTION in_hand_of(t ticket) RETURNS SETOF in_hand LANGUAGE sql IMMUTABLE AS $$
    SELECT t.office_id, list, whose, t.urgency, t.due_at, t.ticket
    FROM (VALUES ('person', t.accountable), ('unit', t.unit), (t.state, 0)) v(list, whose)
    WHERE t.state NOT IN ('registered', 'closed') AND whose IS NOT NULL;
$$;

-- Kept by the database: dates and urgency also change where no person does anything, in batches.
CREATE FUNCTION keep_in_hand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM in_hand i USING (
            SELECT * FROM in_hand_of(OLD) EXCEPT SELECT * FROM in_hand_of(NEW)) gone
        WHERE i.office_id = gone.office_id AND i.list = gone.list AND i.whose = gone.whose
          AND i.urgency = gone.urgency AND i.due_at = gone.due_at AND i.ticket = gone.ticket;
        INSERT INTO in_hand SELECT * FROM in_hand_of(NEW) EXCEPT SELECT * FROM in_hand_of(OLD);
    ELSE
        INSERT INTO in_hand SELECT * FROM in_hand_of(NEW);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER ticket_taken_up AFTER INSERT ON ticket FOR EACH ROW
    WHEN (NEW.state NOT IN ('registered', 'closed')) EXECUTE FUNCTION keep_in_hand();
CREATE TRIGGER ticket_in_hand AFTER UPDATE ON ticket FOR EACH ROW
    WHEN ((OLD.state NOT IN ('registered', 'closed') OR NEW.state NOT IN ('registered', 'closed'))
      AND (OLD.state, OLD.accountable, OLD.unit, OLD.urgency, OLD.due_at)
          IS DISTINCT FROM (NEW.state, NEW.accountable, NEW.unit, NEW.urgency, NEW.due_at))
    EXECUTE FUNCTION keep_in_hand();

INSERT INTO in_hand SELECT l.* FROM ticket t CROSS JOIN LATERAL in_hand_of(t) l WHERE t.is_open;
