-- The certificate that a receiver presented when its subscription was tested last: who verifies it is told when that expires.
CREATE TABLE receiver_certificates (
    subscription_id uuid PRIMARY KEY REFERENCES subscriptions (id),
    tenant_id uuid NOT NULL,
    subject text NOT NULL,
    issuer text NOT NULL,
    thumbprint text NOT NULL,
    not_before timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
