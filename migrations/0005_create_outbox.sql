-- Effects on the outside, written by the transaction that decided them (invariant 4), and the
-- notices that the relay makes of them.

CREATE TABLE outbox (
    office_id  integer NOT NULL,
    outbox_id  bigint GENERATED ALWAYS AS IDENTITY,
    kind       text NOT NULL,
    ticket     bigint NOT NULL,
    urgent     boolean NOT NULL,
    data       jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    not_before timestamptz NOT NULL,        -- the next opening for what can wait until then
    state      smallint NOT NULL DEFAULT 0 CHECK (state IN (0, 1)),   -- pending, made into notices
    PRIMARY KEY (office_id, outbox_id)
) WITH (fillfactor = 85);
CREATE INDEX outbox_pending ON outbox (office_id, not_before) WHERE state = 0;

CREATE TABLE notice (
    office_id    integer NOT NULL,
    notice_id    bigint GENERATED ALWAYS AS IDENTITY,
    target       text NOT NULL,              -- the configured way: 'desk', 'wecom', ...
    audience     text NOT NULL,              -- whom: resolved to people when it is sent
    title        text NOT NULL,
    lines        text[] NOT NULL,
    ticket       bigint,                     -- where it is about one
    urgent       boolean NOT NULL,
    state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'dead')),
    attempts     integer NOT NULL DEFAULT 0,
    next_try_at  timestamptz NOT NULL,       -- doubles as the lease of an attempt under way
    recipients   text[] NOT NULL DEFAULT '{}',
    last_error   text,
    created_at   timestamptz NOT NULL,
    sent_at      timestamptz,
    PRIMARY KEY (office_id, notice_id)
) WITH (fillfactor = 70);
CREATE INDEX notice_pending ON notice (next_try_at) WHERE state = 'pending';
CREATE INDEX notice_dead ON notice (office_id, notice_id) WHERE state = 'dead';
