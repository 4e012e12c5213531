-- An inbox is a subscription without an address: its deliveries wait in the queue until somebody receives them. docs/decisions says why.
-- A Delivery process of the version before takes one for a webhook without an address: make none before all of them are new.
ALTER TABLE subscriptions
    ADD COLUMN inbox text,
    ADD COLUMN lease_seconds int NOT NULL DEFAULT 30 CHECK (lease_seconds > 0),
    ADD COLUMN max_deliveries int NOT NULL DEFAULT 10 CHECK (max_deliveries > 0),
    ADD CONSTRAINT inbox_or_address CHECK ((inbox IS NULL) = (url <> ''));
COMMENT ON COLUMN subscriptions.inbox IS 'its name; null for those that are pushed to';
CREATE UNIQUE INDEX subscriptions_inbox ON subscriptions (tenant_id, inbox) WHERE inbox IS NOT NULL AND deleted_at IS NULL;

-- Why the last attempt failed, or what a receiver said when it rejected.
ALTER TABLE dead_letters ADD COLUMN last_error text;
