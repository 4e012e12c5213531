-- Subscriptions that have ended, until their tenants are told: written in the transaction that ends one. A process of the version before
-- tells only of those whose time is over, and by itself.
CREATE TABLE subscription_ends (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL,
    subscription_id uuid NOT NULL REFERENCES subscriptions (id),
    url text NOT NULL,
    type text NOT NULL,
    reason text,
    expires_at timestamptz
);
COMMENT ON COLUMN subscription_ends.type IS 'of the event by which the tenant is told';
