-- Offices (windows), their units, people, rosters and accounts. The office is the tenant: every
-- table's key starts with it, so that one office is one shard and nothing is read across offices.

CREATE TABLE office (
    office_id        integer PRIMARY KEY,
    code             text NOT NULL UNIQUE CHECK (code ~ '^[a-z][a-z0-9-]{0,31}$'),
    name             text NOT NULL CHECK (name <> ''),
    number_prefix    text NOT NULL DEFAULT 'BCS' CHECK (number_prefix ~ '^[A-Z]{1,8}$'),
    -- The office's readings where the notice is silent (RULES.md [policy]); see domain::Policy.
    policy           jsonb NOT NULL DEFAULT '{}',
    -- Grows with every change to a calendar that the office sees; dates carry the one they used.
    calendar_version integer NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE unit (
    office_id integer NOT NULL REFERENCES office,
    unit_id   integer NOT NULL,
    name      text NOT NULL CHECK (name <> ''),
    PRIMARY KEY (office_id, unit_id),
    UNIQUE (office_id, name)
);

CREATE TABLE staff (
    office_id     integer NOT NULL REFERENCES office,
    staff_id      integer NOT NULL,
    -- One name for the whole deployment, so that the login page asks for two things only.
    login         text NOT NULL UNIQUE CHECK (login ~ '^[a-z][a-z0-9._-]{1,31}$'),
    name          text NOT NULL CHECK (name <> ''),
    role          text NOT NULL CHECK (role IN ('duty_officer', 'unit_head', 'lead_on_duty',
                      'leadership', 'party_group', 'office', 'administrator')),
    unit_id       integer,
    email         text,
    mobile        text,
    password_hash text NOT NULL,
    disabled      boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (office_id, staff_id),
    FOREIGN KEY (office_id, unit_id) REFERENCES unit
);

-- Who is on duty when (RD1.1, RD1.2). A lead's shift covers the week.
CREATE TABLE shift (
    office_id integer NOT NULL REFERENCES office,
    duty      text NOT NULL CHECK (duty IN ('officer', 'lead')),
    starts_at timestamptz NOT NULL,
    ends_at   timestamptz NOT NULL CHECK (ends_at > starts_at),
    staff_id  integer NOT NULL,
    PRIMARY KEY (office_id, duty, starts_at, staff_id),
    FOREIGN KEY (office_id, staff_id) REFERENCES staff
);

-- Sessions of the desk. Only a digest of the cookie is kept: a copy of this table opens nothing.
CREATE TABLE desk_session (
    office_id    integer NOT NULL,
    token_digest bytea NOT NULL CHECK (length(token_digest) = 32),
    staff_id     integer NOT NULL,
    csrf         text NOT NULL,
    created_at   timestamptz NOT NULL,
    seen_at      timestamptz NOT NULL,
    PRIMARY KEY (office_id, token_digest),
    FOREIGN KEY (office_id, staff_id) REFERENCES staff
);
CREATE UNIQUE INDEX desk_session_token ON desk_session (token_digest);

-- Failed logins by name and address (S21): shared by replicas, alive across restarts.
CREATE TABLE login_failure (
    login        text NOT NULL,
    address      text NOT NULL,
    failures     integer NOT NULL,
    locked_until timestamptz,
    failed_at    timestamptz NOT NULL,
    PRIMARY KEY (login, address)
);

CREATE TABLE api_token (
    office_id    integer NOT NULL REFERENCES office,
    name         text NOT NULL CHECK (name ~ '^[a-z][a-z0-9._-]{1,31}$'),
    token_digest bytea NOT NULL UNIQUE CHECK (length(token_digest) = 32),
    scopes       text[] NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (office_id, name)
);
