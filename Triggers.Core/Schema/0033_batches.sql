-- Several events in one request, for subscriptions that ask for it. docs/decisions/0022-batches.md says how. The version before sends them
-- one by one: ask for none before all Delivery processes are new.
ALTER TABLE subscriptions
    ADD COLUMN batch_max int CHECK (batch_max > 1),
    ADD COLUMN batch_wait interval,
    ADD CONSTRAINT subscriptions_batch_check CHECK ((batch_max IS NULL) = (batch_wait IS NULL));

ALTER TABLE delivery_queue
    ADD COLUMN batch_at timestamptz,
    ADD COLUMN batch_limit int;
COMMENT ON COLUMN delivery_queue.batch_at IS 'until then, while it was never claimed, it waits for others to go with; null: it does not';
COMMENT ON COLUMN delivery_queue.batch_limit IS 'it goes with so many in all at most, since a batch with it failed; null: as many as may';

ALTER TABLE attempts ADD COLUMN batch_id uuid;
ALTER TABLE deliveries ADD COLUMN batch_id uuid;
COMMENT ON COLUMN deliveries.batch_id IS 'which request the last attempt was, where several events were in it';

CREATE OR REPLACE VIEW all_attempts AS
SELECT tenant_id, delivery_id, claim, id, number, started_at, duration_ms, outcome, error, status_code, response_headers, response_body,
    batch_id
FROM attempts
UNION ALL
SELECT tenant_id, id, claim, attempt_id, attempt_number, attempt_started_at, attempt_duration_ms, last_outcome, attempt_error,
    last_status_code,
    response_headers, response_body, batch_id
FROM deliveries WHERE attempt_id IS NOT NULL;
