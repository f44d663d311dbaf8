-- Recordings of the telephone: what was measured of them, by which rule they go, who may keep them,
-- what a machine has understood.

-- Sound: how long it is and whether anything can be heard, as measured; NULL where nothing here can
-- decode it. 'itself': it plays as it came.
ALTER TABLE media_object ADD COLUMN ms integer, ADD COLUMN silent boolean NOT NULL DEFAULT false;
ALTER TABLE media_object DROP CONSTRAINT media_object_copies_check,
    ADD CHECK (copies IN ('none', 'itself', 'picture', 'sound'));
UPDATE media_object SET copies = 'itself' WHERE copies = 'none' AND type IN ('audio/wav', 'audio/mpeg');

-- 'removed': by the rule of its source (audio.keep_days). The row stays, as does everything that was
-- told of the recording; what the trail says of it is the event `recordings_removed`.
ALTER TABLE media ADD COLUMN removed_at timestamptz,
    DROP CONSTRAINT media_state_check,
    ADD CONSTRAINT media_state_check
        CHECK (state IN ('waiting', 'kept', 'expired', 'failed', 'refused', 'removed')),
    ADD CHECK ((state = 'removed') = (removed_at IS NOT NULL));
CREATE INDEX media_recordings ON media (office_id, source, received_at)
    WHERE state = 'kept' AND source LIKE 'hotline:%';
CREATE TRIGGER media_removed AFTER UPDATE OF state ON media
    FOR EACH ROW WHEN (NEW.state = 'removed' AND OLD.hash IS NOT NULL) EXECUTE FUNCTION media_let_go();

ALTER TABLE call_recording DROP CONSTRAINT call_recording_state_check,
    ADD CONSTRAINT call_recording_state_check CHECK (state IN
        ('announced', 'stored', 'absent', 'too_short', 'failed', 'expired', 'removed'));
CREATE OR REPLACE FUNCTION media_of_recording() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE call_recording SET
        state = CASE NEW.state WHEN 'kept' THEN 'stored' WHEN 'expired' THEN 'expired'
                WHEN 'removed' THEN 'removed' ELSE 'failed' END,
        hash = NEW.hash
    WHERE office_id = NEW.office_id AND ticket = NEW.ticket AND seq = NEW.seq;
    RETURN NULL;
END $$;

-- 保留录音: the ticket's recordings go by no rule. Its events say who wants it so, and why.
ALTER TABLE ticket ADD COLUMN recordings_held boolean NOT NULL DEFAULT false;

-- One row for what one person hears at a time: a player asks for it in pieces, until `until`.
ALTER TABLE media_opened ADD COLUMN until timestamptz;
UPDATE media_opened SET until = at;
ALTER TABLE media_opened ALTER COLUMN until SET NOT NULL;

-- What a machine has understood of a recording, by its content: goes with it.
CREATE TABLE transcript (
    office_id   integer NOT NULL,
    hash        bytea NOT NULL,
    state       text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'failed')),
    next_try_at timestamptz,
    tries       integer NOT NULL DEFAULT 0,
    text        text,
    says        text,                       -- why the last try came to nothing
    PRIMARY KEY (office_id, hash),
    FOREIGN KEY (office_id, hash) REFERENCES media_object ON DELETE CASCADE,
    CHECK ((state = 'waiting') = (next_try_at IS NOT NULL)),
    CHECK ((state = 'done') = (text IS NOT NULL))
);
CREATE INDEX transcript_due ON transcript (next_try_at) WHERE state = 'waiting';

-- Recordings that a webhook brings along lie here too until they are in the object storage; what
-- nobody has waited for is removed.
CREATE INDEX citizen_upload_kept ON citizen_upload (kept_at);
