-- The citizen's pages: links that open one ticket, what limits guessing, what was sent up.

-- Signs the links to an office's tickets. The database draws it, so that all replicas have the same
-- and no link costs a write. Another value ends every link of the office.
ALTER TABLE office ADD COLUMN link_key bytea NOT NULL
    DEFAULT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')
    CHECK (length(link_key) >= 32);

-- Links to a ticket that were made before this moment open nothing any more.
CREATE TABLE citizen_link (
    office_id      integer NOT NULL,
    ticket         bigint NOT NULL,
    revoked_before timestamptz NOT NULL,
    PRIMARY KEY (office_id, ticket)
);

-- What was tried within an hour: by whom (an address, a number that was asked for, a ticket's own
-- page), shared by replicas (S20). The first attempt of the hour begins it.
CREATE TABLE citizen_attempt (
    office_id integer NOT NULL,
    who       text NOT NULL,
    attempts  integer NOT NULL,
    since     timestamptz NOT NULL,
    PRIMARY KEY (office_id, who)
);
CREATE INDEX citizen_attempt_since ON citizen_attempt (since);

-- Files that citizens sent up on their page, by content, until they are in the object storage: they
-- come with their message's transaction, and the fetcher (src/media/fetch.rs) takes them from here.
CREATE TABLE citizen_upload (
    office_id integer NOT NULL,
    digest    bytea NOT NULL CHECK (length(digest) = 32),   -- SHA-256 of the content
    content   bytea NOT NULL,
    kept_at   timestamptz NOT NULL,                         -- when it came last
    PRIMARY KEY (office_id, digest)
);
-- Photos are compressed already.
ALTER TABLE citizen_upload ALTER COLUMN content SET STORAGE EXTERNAL;

-- A citizen's closed tickets, newest first; what is open has ticket_thread. Written at closing, so
-- that intake pays nothing.
CREATE INDEX ticket_thread_closed ON ticket (office_id, thread, ticket)
    WHERE NOT is_open AND thread IS NOT NULL;
