-- What a subscription's requests say of an event: a format, or a transformation of the envelope, as JSON, encrypted by the services. The
-- version before sends the envelope.
ALTER TABLE subscriptions
    ADD COLUMN format text NOT NULL DEFAULT 'envelope'
        CHECK (format IN ('envelope', 'data', 'cloudevents', 'cloudevents_binary')),
    ADD COLUMN transformation text;

CREATE OR REPLACE TRIGGER subscriptions_revision_bump BEFORE UPDATE ON subscriptions
    FOR EACH ROW WHEN (
        (OLD.url, OLD.headers, OLD.secrets, OLD.retry, OLD.authentication, OLD.client_certificate, OLD.format, OLD.transformation)
        IS DISTINCT FROM
        (NEW.url, NEW.headers, NEW.secrets, NEW.retry, NEW.authentication, NEW.client_certificate, NEW.format, NEW.transformation))
    EXECUTE FUNCTION bump_subscription_revision();
