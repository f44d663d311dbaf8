-- 新诉求 is no question that another one could overwrite: since when the citizen's next words are
-- another matter, whatever is asked and answered in between.
ALTER TABLE conversation ADD COLUMN next_is_new timestamptz;
UPDATE conversation SET next_is_new = asked_at, question = NULL, about = NULL, asked_at = NULL
WHERE question = 'what_is_new';
ALTER TABLE conversation DROP CONSTRAINT conversation_question_check,
    ADD CONSTRAINT conversation_question_check CHECK (question IN ('old_or_new', 'grade', 'withdraw'));
