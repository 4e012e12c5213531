-- REST hooks: subscriptions named by their address, which a 410 removes; and subscriptions that end by themselves.
ALTER TABLE subscriptions
    ADD COLUMN is_hook boolean NOT NULL DEFAULT false,
    ADD COLUMN expires_at timestamptz;
CREATE UNIQUE INDEX subscriptions_hook ON subscriptions (tenant_id, url) WHERE is_hook AND deleted_at IS NULL;
CREATE INDEX subscriptions_expiry ON subscriptions (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;
