-- What an exchange held when it was connected is nobody's news: from when on its calls are taken
-- ([hotline] since). And a recording that was given up and is looked for anew, at a renewed link.

-- When the gateway first looked at a source. Those that it knows were looked at before their first call.
CREATE TABLE call_source (
    office_id     integer NOT NULL REFERENCES office,
    source        text NOT NULL,            -- hotline:pbx1
    first_seen_at timestamptz NOT NULL,
    PRIMARY KEY (office_id, source)
);
INSERT INTO call_source
    SELECT office_id, source, min(least(told_at, spoken_at)) FROM call GROUP BY office_id, source;

CREATE OR REPLACE FUNCTION media_of_recording() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE call_recording SET
        state = CASE NEW.state WHEN 'kept' THEN 'stored' WHEN 'expired' THEN 'expired'
                WHEN 'removed' THEN 'removed' WHEN 'waiting' THEN 'announced' ELSE 'failed' END,
        hash = NEW.hash
    WHERE office_id = NEW.office_id AND ticket = NEW.ticket AND seq = NEW.seq;
    RETURN NULL;
END $$;
DROP TRIGGER media_of_recording ON media;
CREATE TRIGGER media_of_recording AFTER UPDATE OF state ON media FOR EACH ROW
    WHEN (NEW.source LIKE 'hotline:%' AND NEW.state <> OLD.state AND NEW.n = 0)
    EXECUTE FUNCTION media_of_recording();
