-- Nothing writes or reads it: when something came stands in `received_at`.
ALTER TABLE inbound DROP COLUMN came_in_at;
