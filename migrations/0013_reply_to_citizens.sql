-- What citizens are told of their tickets, by the right path (wechat.md 6.4): what is to be told,
-- each attempt to tell it, what the platform reports of it, and what citizens allow.

-- What was heard of a source, each once: consents are counted, and callbacks are repeated. Kept for
-- as long as a source may repeat itself.
CREATE TABLE heard (
    office_id integer NOT NULL,
    source    text NOT NULL,
    identity  text NOT NULL,
    heard_at  timestamptz NOT NULL,
    PRIMARY KEY (office_id, source, identity)
);
CREATE INDEX heard_age ON heard (heard_at);

-- Consents to be sent notices by a template: how many are left (6.3).
CREATE TABLE wechat_consent (
    office_id   integer NOT NULL,
    app_id      text NOT NULL,
    openid      text NOT NULL,
    template_id text NOT NULL,
    remaining   integer NOT NULL CHECK (remaining >= 0),
    changed_at  timestamptz NOT NULL,
    PRIMARY KEY (office_id, app_id, openid, template_id)
) WITH (fillfactor = 85);

-- Who stopped following the account, and came back: callbacks overtake each other, so both times
-- are kept, and the later one holds.
CREATE TABLE wechat_leaving (
    office_id integer NOT NULL,
    app_id    text NOT NULL,
    openid    text NOT NULL,
    left_at   timestamptz NOT NULL,
    back_at   timestamptz,
    PRIMARY KEY (office_id, app_id, openid)
) WITH (fillfactor = 85);
CREATE INDEX wechat_leaving_age ON wechat_leaving (left_at);

-- One thing to tell a citizen.
CREATE TABLE reply (
    office_id   integer NOT NULL,
    reply_id    bigint GENERATED ALWAYS AS IDENTITY,
    ticket      bigint NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('registered', 'claimed', 'raised', 'awaiting',
                    'resolved', 'said', 'reopened')),
    facts       jsonb NOT NULL,          -- as they were when it was decided; no words yet
    lane        text NOT NULL,           -- 'wechat:main', 'sms': what it waits for room in
    state       text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'failed',
                    'call', 'called')),
    attempts    integer NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL,    -- doubles as the lease of an attempt under way
    created_at  timestamptz NOT NULL,
    ended_at    timestamptz,
    called_by   integer,                 -- who telephoned
    PRIMARY KEY (office_id, reply_id),
    CHECK ((state = 'called') = (called_by IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX reply_due ON reply (office_id, lane, next_try_at) WHERE state = 'pending';
CREATE INDEX reply_of_ticket ON reply (office_id, ticket, reply_id);

-- Each attempt, written before it begins: one that nobody came back from is known.
CREATE TABLE reply_attempt (
    office_id   integer NOT NULL,
    reply_id    bigint NOT NULL,
    attempt     integer NOT NULL,
    path        text NOT NULL CHECK (path IN ('custom', 'notice', 'template', 'sms')),
    source      text NOT NULL,           -- 'wechat:main', 'sms': whose message ids these are
    recipient   text NOT NULL,           -- openid or number: receipts may name nothing else
    template_id text,
    began_at    timestamptz NOT NULL,
    ended_at    timestamptz,
    outcome     text NOT NULL DEFAULT 'under_way' CHECK (outcome IN ('under_way', 'taken', 'over',
                    'later', 'uncertain')),
    code        bigint,                  -- the other side's, where it gave one
    says        text,                    -- for staff
    message_id  text,                    -- by which a receipt names it
    delivery    text CHECK (delivery IN ('arrived', 'refused', 'too_many', 'failed')),
    PRIMARY KEY (office_id, reply_id, attempt)
) WITH (fillfactor = 70);
-- A receipt that names no message, or one whose sending was never answered, is matched by recipient.
CREATE INDEX reply_attempt_open ON reply_attempt (office_id, source, recipient, began_at)
    WHERE outcome IN ('under_way', 'taken', 'uncertain') AND message_id IS NULL;

-- What joins an attempt and its receipt, by the platform's id of the message. Whichever comes first
-- makes the row, the other finds it there: a receipt may overtake the answer of the sending call.
CREATE TABLE reply_receipt (
    office_id     integer NOT NULL,
    source        text NOT NULL,
    message_id    text NOT NULL,
    reply_id      bigint,
    attempt       integer,
    delivery      text CHECK (delivery IN ('arrived', 'refused', 'too_many', 'failed')),
    template_id   text,
    correspondent text,
    at            timestamptz NOT NULL,
    PRIMARY KEY (office_id, source, message_id)
) WITH (fillfactor = 85);
CREATE INDEX reply_receipt_unmatched ON reply_receipt (office_id, source, correspondent, at)
    WHERE reply_id IS NULL;
CREATE INDEX reply_receipt_age ON reply_receipt (at);

-- Of which effects citizens are told, apart from what staff are told of them: that waits for the
-- opening. What happened before is not told any more.
ALTER TABLE outbox ADD COLUMN citizen_told boolean NOT NULL DEFAULT true;
ALTER TABLE outbox ALTER COLUMN citizen_told SET DEFAULT false;
CREATE INDEX outbox_for_citizens ON outbox (office_id, outbox_id)
    WHERE NOT citizen_told
      AND (kind IN ('claimed', 'raised', 'awaiting', 'resolved', 'said', 'reopened')
           OR data ? 'tell_citizen');
