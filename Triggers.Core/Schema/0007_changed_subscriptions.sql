-- By which transaction a subscription was written last: whoever holds a copy of all of them reads only those that its last look could not
-- see.
ALTER TABLE subscriptions ADD COLUMN changed_by xid8 NOT NULL DEFAULT pg_current_xact_id();

CREATE FUNCTION mark_subscription_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_by := pg_current_xact_id();
    RETURN NEW;
END $$;
CREATE TRIGGER subscriptions_changed BEFORE INSERT OR UPDATE ON subscriptions
    FOR EACH ROW EXECUTE FUNCTION mark_subscription_changed();

CREATE INDEX subscriptions_changed_by_idx ON subscriptions (changed_by);
