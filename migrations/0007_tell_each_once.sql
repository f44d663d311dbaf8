-- What the other side knows a notice by. The key of the row comes again after a restore and in a
-- second deployment; a notice that is dropped there as a repeat would be lost.
ALTER TABLE notice ADD COLUMN delivery text NOT NULL DEFAULT gen_random_uuid()::text;

-- What is due by one way of one office: each way is served by itself, so that one that hangs or has
-- gathered a hundred thousand delays no other.
CREATE INDEX notice_lane ON notice (office_id, target, urgent DESC, next_try_at)
    WHERE state = 'pending';

-- Emergencies among tickets whose timers fall due (RD3.2): few.
CREATE INDEX ticket_emergency ON ticket (office_id, ticket) WHERE urgency = 0 AND is_open;

-- For which limits the lead on duty was told that they fall on a half-closed day (A7.7).
CREATE INDEX outbox_half_closure ON outbox (office_id, ticket) WHERE kind = 'half_closure';
