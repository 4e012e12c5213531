-- The version of the subscriptions rises when a transaction that changed any commits, and not with its first change: its row is locked for
-- that moment only. One that applies a configuration would otherwise hold it for as long as it takes, and hold up whoever disables another
-- tenant's subscription, which is done in the transactions that write results and project the log.
SET LOCAL lock_timeout = '500ms';
CREATE OR REPLACE FUNCTION bump_subscriptions_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Once in a transaction, however many rows it changed.
    IF current_setting('triggers.is_bumped', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
        PERFORM set_config('triggers.is_bumped', pg_current_xact_id()::text, true);
        UPDATE subscriptions_version SET version = version + 1;
        PERFORM pg_notify('triggers_subscriptions', '');
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER subscriptions_version_bump ON subscriptions;
CREATE CONSTRAINT TRIGGER subscriptions_version_bump AFTER INSERT OR UPDATE OR DELETE ON subscriptions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION bump_subscriptions_version();
CREATE TRIGGER subscriptions_version_bump_of_all AFTER TRUNCATE ON subscriptions
    FOR EACH STATEMENT EXECUTE FUNCTION bump_subscriptions_version();
SET LOCAL lock_timeout = DEFAULT;
