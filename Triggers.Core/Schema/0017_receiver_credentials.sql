-- What a receiver knows its caller by, encrypted by the services. Signing secrets, and the values of headers, are encrypted too from here
-- on, each on its own; `Triggers.Api --migrate` encrypts those that are there.
ALTER TABLE subscriptions ADD COLUMN authentication text;

CREATE OR REPLACE TRIGGER subscriptions_revision_bump BEFORE UPDATE ON subscriptions
    FOR EACH ROW WHEN ((OLD.url, OLD.headers, OLD.secrets, OLD.retry, OLD.authentication)
        IS DISTINCT FROM (NEW.url, NEW.headers, NEW.secrets, NEW.retry, NEW.authentication))
    EXECUTE FUNCTION bump_subscription_revision();
