-- Usage plans belong to tenants; keys inherit them. The column of api_keys stays for the version before, and is no longer read.
ALTER TABLE usage_plans
    ADD COLUMN events_per_second int CHECK (events_per_second > 0),
    ADD COLUMN bytes_per_second int CHECK (bytes_per_second > 0);
ALTER TABLE tenants ADD COLUMN usage_plan_id uuid REFERENCES usage_plans (id);
CREATE INDEX tenants_usage_plan ON tenants (usage_plan_id) WHERE usage_plan_id IS NOT NULL;

-- A tenant gets the most generous plan that one of its keys has; a key of another plan keeps that one's rate as its own.
UPDATE tenants t SET usage_plan_id = (
    SELECT p.id FROM api_keys k JOIN usage_plans p ON p.id = k.usage_plan_id
    WHERE k.tenant_id = t.id AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
    ORDER BY p.events_per_day DESC NULLS FIRST, p.requests_per_second DESC, p.burst DESC, p.id LIMIT 1);
UPDATE api_keys k SET
    requests_per_second = coalesce(k.requests_per_second, p.requests_per_second),
    burst = coalesce(k.burst, p.burst)
FROM usage_plans p, tenants t
WHERE p.id = k.usage_plan_id AND t.id = k.tenant_id AND t.usage_plan_id IS DISTINCT FROM k.usage_plan_id;

-- The key that shares its limit: one that was rotated, or that made others while it had a limit of its own. Null for the key itself.
ALTER TABLE api_keys ADD COLUMN limit_id uuid;
CREATE INDEX api_keys_limit ON api_keys (limit_id) WHERE limit_id IS NOT NULL;

-- The key that Auth:BootstrapAdminKey names, and those it named before.
ALTER TABLE api_keys ADD COLUMN bootstrap text CHECK (bootstrap IN ('current', 'replaced'));
UPDATE api_keys k SET bootstrap = 'current' FROM tenants t
WHERE t.id = k.tenant_id AND t.name = 'default' AND k.name = 'bootstrap' AND k.scopes = '{admin}';

-- Of what a replay job makes the API charges its tenant, behind the delivery service that makes it.
ALTER TABLE replay_jobs
    ADD COLUMN charged bigint NOT NULL DEFAULT 0,
    ADD COLUMN charge_at timestamptz NOT NULL DEFAULT now();
UPDATE replay_jobs SET charged = deliveries;
CREATE INDEX replay_jobs_uncharged ON replay_jobs (charge_at) WHERE deliveries > charged;

-- Only keys of the tenant `default` administer the platform. Those of others go on administering their own tenant; with every scope of
-- theirs named, since the version before does not know the new one.
UPDATE api_keys k SET scopes = ARRAY['events:write', 'events:read', 'inbox:read', 'inbox:write', 'subscriptions:write',
    'subscriptions:read', 'keys:write', 'tenant:admin']
FROM tenants t WHERE t.id = k.tenant_id AND t.name <> 'default' AND 'admin' = ANY (k.scopes);
