-- A message's words stand in it once: where its original has them as they are, they are cut out of
-- the original and their place is kept. Half of what a message took; and whoever changes the words
-- changes the original, whose digest is in the trail.
ALTER TABLE message ADD COLUMN words_at integer CHECK (words_at >= 0); -- bytes of `raw` before them
ALTER TYPE intake_event ADD ATTRIBUTE words_at integer;

-- What came in, byte for byte.
CREATE FUNCTION original(message) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN $1.words_at IS NULL THEN $1.raw
           ELSE substring($1.raw FOR $1.words_at) || convert_to($1.text, 'UTF8')
                || substring($1.raw FROM $1.words_at + 1) END
$$;
