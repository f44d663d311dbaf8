-- What citizens sent beside their words: photos, voice, video. The source keeps it for days only
-- (WeChat: three), so it is fetched and kept in the object storage (src/media/). The row is written
-- with the message, in its transaction, so that nothing is forgotten between the two.

-- Content, named by its SHA-256; the same photo twice is one. A row is there before the content is
-- and goes after it, so that there is no content that nobody knows of. `unused_since` (by the
-- database's clock): no message names it, and it can go after a while.
CREATE TABLE media_object (
    office_id    integer NOT NULL REFERENCES office,
    hash         bytea NOT NULL CHECK (length(hash) = 32),
    type         text,       -- as its first bytes say; NULL until it is kept
    size         bigint,     -- in bytes
    copies       text CHECK (copies IN ('none', 'picture', 'sound')),
    unused_since timestamptz DEFAULT now(),
    PRIMARY KEY (office_id, hash),
    CHECK (unused_since IS NOT NULL OR (type IS NOT NULL AND size IS NOT NULL AND copies IS NOT NULL))
);
CREATE INDEX media_object_unused ON media_object (unused_since) WHERE unused_since IS NOT NULL;

-- Attachment `n` (from 0) of the message `seq` of a ticket.
CREATE TABLE media (
    office_id   integer NOT NULL,
    ticket      bigint NOT NULL,
    seq         integer NOT NULL,
    n           smallint NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('image', 'voice', 'video', 'file')),
    source      text NOT NULL,          -- who is asked for it: wechat:main
    reference   text NOT NULL,          -- and by what name
    state       text NOT NULL CHECK (state IN ('waiting', 'kept', 'expired', 'failed', 'refused')),
    received_at timestamptz NOT NULL,
    expires_at  timestamptz,            -- then the source has it no more
    next_try_at timestamptz,            -- waiting without: nobody fetches this source
    tries       integer NOT NULL DEFAULT 0,
    says        text,                   -- why the last try came to nothing; without personal data
    hash        bytea,
    PRIMARY KEY (office_id, ticket, seq, n),
    FOREIGN KEY (office_id, hash) REFERENCES media_object,
    CHECK ((state = 'kept') = (hash IS NOT NULL)),
    CHECK (state = 'waiting' OR next_try_at IS NULL)
) WITH (fillfactor = 85);
CREATE INDEX media_due ON media (next_try_at) WHERE state = 'waiting' AND next_try_at IS NOT NULL;
CREATE INDEX media_by_hash ON media (office_id, hash) WHERE hash IS NOT NULL;

-- Whoever removes a message's media need not know of the content.
CREATE FUNCTION media_let_go() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE media_object SET unused_since = now()
        WHERE office_id = OLD.office_id AND hash = OLD.hash;
    RETURN NULL;
END $$;
CREATE TRIGGER media_let_go AFTER DELETE ON media
    FOR EACH ROW WHEN (OLD.hash IS NOT NULL) EXECUTE FUNCTION media_let_go();

-- Who listened to a voice or took an original out of the system, and when (RD4.2).
CREATE TABLE media_opened (
    office_id integer NOT NULL,
    ticket    bigint NOT NULL,
    seq       integer NOT NULL,
    n         smallint NOT NULL,
    at        timestamptz NOT NULL,
    staff_id  integer NOT NULL,
    variant   text NOT NULL CHECK (variant IN ('play', 'original')),
    PRIMARY KEY (office_id, ticket, seq, n, at, staff_id, variant),
    FOREIGN KEY (office_id, staff_id) REFERENCES staff
);

-- What came before this table: tried once, for what the source may still have.
INSERT INTO media (office_id, ticket, seq, n, kind, source, reference, state, received_at,
    expires_at, next_try_at)
SELECT m.office_id, m.ticket, m.seq, (a.n - 1)::smallint, a.one ->> 'kind', b.source,
    a.one ->> 'reference', 'waiting', m.received_at,
    CASE WHEN b.source LIKE 'wechat:%' THEN m.received_at + interval '3 days' END,
    CASE WHEN b.source LIKE 'wechat:%' THEN m.received_at END
FROM message m
JOIN inbound b ON b.office_id = m.office_id AND b.ticket = m.ticket AND b.seq = m.seq
CROSS JOIN LATERAL jsonb_array_elements(m.attachments) WITH ORDINALITY AS a(one, n)
WHERE m.attachments IS NOT NULL AND a.one ->> 'kind' IN ('image', 'voice', 'video');
