-- What a subscription says of its retries; null: nothing. A failure counts only under the policy it was obtained with.
ALTER TABLE subscriptions ADD COLUMN retry jsonb;

CREATE OR REPLACE TRIGGER subscriptions_revision_bump BEFORE UPDATE ON subscriptions
    FOR EACH ROW WHEN ((OLD.url, OLD.headers, OLD.secrets, OLD.retry) IS DISTINCT FROM (NEW.url, NEW.headers, NEW.secrets, NEW.retry))
    EXECUTE FUNCTION bump_subscription_revision();
