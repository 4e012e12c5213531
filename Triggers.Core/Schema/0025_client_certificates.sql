-- The certificate by which a receiver knows its caller, with its key, encrypted by the services. A Delivery process of the version before
-- sends without it.
ALTER TABLE subscriptions ADD COLUMN client_certificate text;

CREATE OR REPLACE TRIGGER subscriptions_revision_bump BEFORE UPDATE ON subscriptions
    FOR EACH ROW WHEN ((OLD.url, OLD.headers, OLD.secrets, OLD.retry, OLD.authentication, OLD.client_certificate)
        IS DISTINCT FROM (NEW.url, NEW.headers, NEW.secrets, NEW.retry, NEW.authentication, NEW.client_certificate))
    EXECUTE FUNCTION bump_subscription_revision();
