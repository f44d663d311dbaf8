-- What officers do on a ticket beyond claiming and referring it.

-- From when the limits run where that is no longer acceptance: after a pause for the citizen (R7.a),
-- what was used up before it stays used; after reopening, everything begins anew. Null: acceptance.
ALTER TABLE ticket ADD COLUMN runs_from timestamptz;

-- The ticket whose messages this one was made of, where an officer found two matters in one. Its
-- citizen is found there: the thread stays with the ticket that grows.
ALTER TABLE ticket ADD COLUMN spun_off_from bigint;
