-- Deliveries that go one after the other. docs/decisions/0015-ordering.md says how. A Delivery process of the version before does not keep
-- the order: ask for none before all of them are new.
ALTER TABLE subscriptions
    ADD COLUMN ordering text NOT NULL DEFAULT 'none' CHECK (ordering IN ('none', 'per_key', 'strict')),
    ADD COLUMN failing_head text NOT NULL DEFAULT 'block' CHECK (failing_head IN ('block', 'dead_letter_after', 'park_key')),
    ADD COLUMN failing_head_attempts int CHECK (failing_head_attempts > 0);
COMMENT ON COLUMN subscriptions.failing_head_attempts IS
    'after how many failed attempts a head is given up; null: at the end of its retries';

CREATE SEQUENCE delivery_order;
ALTER TABLE delivery_queue
    ADD COLUMN order_key text,
    ADD COLUMN position bigint,
    ADD CONSTRAINT has_a_place_in_order CHECK ((order_key IS NULL) = (position IS NULL)) NOT VALID;
COMMENT ON COLUMN delivery_queue.order_key IS 'of those of a subscription with the same key only the first is due; null: in no order';
COMMENT ON COLUMN delivery_queue.next_attempt_at IS
    'the schedule, and while it is claimed the lease; infinity while others of its key are before it, or the key is held';
CREATE INDEX delivery_queue_order ON delivery_queue (subscription_id, order_key, position) WHERE order_key IS NOT NULL;

-- Keys of which nothing is sent until somebody says so, since a delivery failed for good.
CREATE TABLE held_keys (
    subscription_id uuid NOT NULL REFERENCES subscriptions (id),
    order_key text NOT NULL,
    tenant_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    reason text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (subscription_id, order_key)
);
COMMENT ON COLUMN held_keys.delivery_id IS 'which failed: it still heads the key, or is a dead letter';

-- Those who get the event in order have their delivery already: it is made as the log is read.
ALTER TABLE fan_outs ADD COLUMN made uuid[];

CREATE OR REPLACE VIEW all_deliveries AS
SELECT tenant_id, id, event_id, subscription_id, 'pending' AS status, claim, claimed_by, retry_count,
    nullif(next_attempt_at, 'infinity') AS next_attempt_at, last_outcome, last_status_code,
    replay_of, test, NULL::timestamptz AS finalized_at
FROM delivery_queue
UNION ALL
SELECT tenant_id, id, event_id, subscription_id, status, claim, NULL, retry_count, NULL, last_outcome, last_status_code,
    replay_of, test, finalized_at
FROM deliveries;
