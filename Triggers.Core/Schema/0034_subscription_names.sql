-- What a configuration knows a subscription by; null for those that it does not know.
ALTER TABLE subscriptions ADD COLUMN name text;
CREATE UNIQUE INDEX subscriptions_name ON subscriptions (tenant_id, name) WHERE name IS NOT NULL AND deleted_at IS NULL;
