-- Messages of one second stand in the order in which the platform numbered them, not in the order in
-- which its deliveries arrived; and of a burst the staff is told once.
ALTER TABLE message ADD COLUMN sent_order bigint;         -- the platform's number; by itself no identity
ALTER TYPE intake_event ADD ATTRIBUTE sent_order bigint;
ALTER TABLE ticket ADD COLUMN growth_told_at timestamptz; -- when the staff is told next of what was added
-- What was asked for and came: nobody is reminded of what lies there already.
ALTER TABLE ticket ADD COLUMN material_came_at timestamptz; -- while it waits for the citizen
-- What got no answer was registered by itself; the answer may still come.
ALTER TABLE conversation DROP CONSTRAINT conversation_question_check,
    ADD CONSTRAINT conversation_question_check
        CHECK (question IN ('old_or_new', 'same_as', 'grade', 'withdraw'));
