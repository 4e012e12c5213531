-- What an attempt was made with. A failure counts only while the subscription is still as it was: otherwise it says nothing of what is
-- there now.
ALTER TABLE subscriptions ADD COLUMN revision int NOT NULL DEFAULT 1;

CREATE FUNCTION bump_subscription_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := OLD.revision + 1;
    RETURN NEW;
END $$;
CREATE TRIGGER subscriptions_revision_bump BEFORE UPDATE ON subscriptions
    FOR EACH ROW WHEN ((OLD.url, OLD.headers, OLD.secrets) IS DISTINCT FROM (NEW.url, NEW.headers, NEW.secrets))
    EXECUTE FUNCTION bump_subscription_revision();
