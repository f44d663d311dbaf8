-- What sources tell of calls is compared with what is held of them, every night
-- (src/calls/reconcile.rs), and the outcome is kept.
CREATE TABLE reconciliation (
    office_id integer NOT NULL REFERENCES office,
    source    text NOT NULL,
    at        timestamptz NOT NULL,
    since     timestamptz NOT NULL,         -- from when on was compared
    told      integer,                      -- calls that the source tells of; null: it keeps no list, or gave none
    held      integer NOT NULL,             -- of those; where there is no list, of all that it told before
    repaired  integer NOT NULL,
    missing   integer NOT NULL,             -- could not be repaired
    differs   integer NOT NULL,             -- held with another number or time than is told
    says      text,                         -- why it could not be compared, or not wholly
    PRIMARY KEY (office_id, source, at)
);

-- Of which was told between two moments.
CREATE INDEX call_told ON call (office_id, told_at);
-- What is old enough to go.
CREATE INDEX call_part_received ON call_part (received_at);

-- Up to which opening staff were told what had come in by telephone while the office was closed:
-- once, whichever replica does it.
CREATE TABLE closed_hours_told (
    office_id integer PRIMARY KEY REFERENCES office,
    opened_at timestamptz NOT NULL
);
