-- What tickets are found by. A table of its own, filled after the answer by one worker
-- (src/search/mod.rs): none of this is written by the transaction that a sender waits for.

CREATE TABLE ticket_search (
    office_id integer NOT NULL,
    ticket    bigint NOT NULL,
    is_open   boolean NOT NULL,        -- closing is followed within moments: never false too early
    seq       integer NOT NULL,        -- of the newest message among the words
    v         tsvector NOT NULL,       -- pairs of characters, words and numbers, made by the worker
    PRIMARY KEY (office_id, ticket)
);
-- Entries gather in a list, which the worker brings into its place after each batch: one by one they
-- would write five times as much. A search reads what is left of the list whole, so it is kept short.
CREATE INDEX ticket_search_all ON ticket_search USING gin (v) WITH (gin_pending_list_limit = 1024);
CREATE INDEX ticket_search_open ON ticket_search USING gin (v)
    WITH (gin_pending_list_limit = 256) WHERE is_open;
CREATE INDEX ticket_search_followed ON ticket_search (office_id, ticket) WHERE is_open;

-- How far the worker is in each register: the numbers from `first` to `last` are in. Numbers have no
-- gap and commit in their order, so nothing between is missed.
CREATE TABLE search_progress (
    office_id integer NOT NULL,
    year      integer NOT NULL,
    first     integer NOT NULL CHECK (first > 0),
    last      integer NOT NULL CHECK (last >= first - 1),
    PRIMARY KEY (office_id, year)
);

-- A text as words are looked for in it; src/search/words.rs does the same.
CREATE FUNCTION search_text(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN lower(normalize($1, NFKC) COLLATE "C");

-- Few tickets are of a higher level, and few come by telephone or over the counter: their lists have
-- indexes of their own. What a citizen writes on WeChat enters none of them.
CREATE INDEX ticket_queue_raised ON ticket (office_id, level, urgency, due_at, ticket)
    WHERE is_open AND level > 1;
CREATE INDEX ticket_queue_by_hand ON ticket (office_id, channel, urgency, due_at, ticket)
    WHERE is_open AND channel <> 'wechat';
CREATE INDEX ticket_closed_raised ON ticket (office_id, level, ticket)
    WHERE NOT is_open AND level > 1;
CREATE INDEX ticket_closed_by_hand ON ticket (office_id, channel, ticket)
    WHERE NOT is_open AND channel <> 'wechat';
