-- What a receiver is sent at most, by all processes together; null: as much as there is. The version before sends without limits.
ALTER TABLE subscriptions
    ADD COLUMN rate_requests int CHECK (rate_requests > 0),
    ADD COLUMN rate_seconds int CHECK (rate_seconds > 0),
    ADD COLUMN concurrency int CHECK (concurrency > 0),
    ADD CONSTRAINT subscriptions_rate_check CHECK ((rate_requests IS NULL) = (rate_seconds IS NULL));
