-- A statement's own guard: true when as many rows were found or changed as its author took for
-- granted, else the whole statement fails as overtaken, and nothing of it remains. So a batch of
-- intakes can be decided without locks and written in one statement (see src/store/intake.rs).

CREATE FUNCTION as_expected(place text, changed bigint, wanted bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF changed = wanted THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION '%: % rows instead of %', place, changed, wanted
        USING ERRCODE = 'serialization_failure';
END $$;
