-- The keys of calls are compared as they are written, whatever language the database sorts by: the
-- parts of an Asterisk call are found by what their keys begin with.
ALTER TABLE call_recording DROP CONSTRAINT call_recording_office_id_source_call_key_fkey;
ALTER TABLE call ALTER call_key TYPE text COLLATE "C";
ALTER TABLE call_recording ALTER call_key TYPE text COLLATE "C";
ALTER TABLE call_recording ADD FOREIGN KEY (office_id, source, call_key) REFERENCES call;

-- A ticket that is taken up again may have given its calls to the one that it was joined into; its own
-- telephone is still there to be called.
CREATE OR REPLACE FUNCTION call_back_follows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE call_back SET urgency = NEW.urgency, due_at = NEW.due_at,
        state = CASE
            WHEN NEW.state IN ('resolved', 'evaluated', 'closed')
                THEN CASE WHEN state IN ('waiting', 'withheld') THEN 'over' ELSE state END
            WHEN state = 'over' AND OLD.state IN ('resolved', 'evaluated', 'closed')
                THEN CASE WHEN NEW.citizen_phone IS NOT NULL
                          OR EXISTS (SELECT FROM call c WHERE c.office_id = NEW.office_id
                                     AND c.ticket = NEW.ticket AND c.caller IS NOT NULL)
                     THEN 'waiting' ELSE 'withheld' END
            ELSE state END
    WHERE office_id = NEW.office_id AND ticket = NEW.ticket;
    RETURN NULL;
END $$;
