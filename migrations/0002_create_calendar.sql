-- The calendar beyond the notices that the program carries. Notices are the State Council's and
-- hold for every office; what an office decides for itself has its key.

CREATE TABLE calendar_notice (
    year      integer NOT NULL,
    version   integer NOT NULL,
    document  text NOT NULL,      -- the TOML as loaded, the same form as config/calendar/*.toml
    loaded_by text NOT NULL,
    loaded_at timestamptz NOT NULL,
    PRIMARY KEY (year, version)
);

-- One-off closures and openings (RD2.1), with the paper they rest on. The newest row of a day holds.
CREATE TABLE calendar_override (
    office_id  integer NOT NULL REFERENCES office,
    day        date NOT NULL,
    version    integer NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('closed', 'open', 'morning_closed', 'afternoon_closed', 'withdrawn')),
    reason     text NOT NULL CHECK (reason <> ''),
    authority  text NOT NULL CHECK (authority <> ''),
    entered_by text NOT NULL,
    entered_at timestamptz NOT NULL,
    PRIMARY KEY (office_id, day, version)
);

-- Sessions by weekday from a date on (RD2.1); the week as JSON, see domain::calendar.
CREATE TABLE calendar_sessions (
    office_id  integer NOT NULL REFERENCES office,
    from_day   date NOT NULL,
    week       jsonb NOT NULL,
    entered_by text NOT NULL,
    entered_at timestamptz NOT NULL,
    PRIMARY KEY (office_id, from_day)
);
