-- Who writes again can be told again: what was left to the telephone goes by message after all, and
-- what was tried before that counts no more.
ALTER TABLE reply ADD COLUMN tried_before integer NOT NULL DEFAULT 0;   -- attempts that count no more
