-- What events of a type look like, and what becomes of those that don't. A schema is a version of its type, and never changed.
CREATE TABLE event_types (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    name text NOT NULL,
    id uuid NOT NULL UNIQUE,
    description text,
    group_name text,
    mode text NOT NULL CHECK (mode IN ('off', 'warn', 'enforce')),
    compatibility text NOT NULL CHECK (compatibility IN ('none', 'backward', 'forward', 'full')),
    version int NOT NULL DEFAULT 0 CHECK (version >= 0),
    example text,
    deprecation text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name),
    CHECK (mode = 'off' OR version > 0)
);
CREATE UNIQUE INDEX event_types_list_idx ON event_types (tenant_id, id);

CREATE TABLE event_type_versions (
    event_type_id uuid NOT NULL REFERENCES event_types (id) ON DELETE CASCADE,
    version int NOT NULL CHECK (version > 0),
    id uuid NOT NULL UNIQUE,
    schema text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_type_id, version)
);

-- Who has a key of the tenant sees by the number whether what is known of its types is old. 0: there is nothing to know.
ALTER TABLE tenants ADD COLUMN unknown_event_types text NOT NULL DEFAULT 'allow' CHECK (unknown_event_types IN ('allow', 'refuse'));
ALTER TABLE tenants ADD COLUMN contracts_version bigint NOT NULL DEFAULT 0;

CREATE FUNCTION bump_contracts_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tenants SET contracts_version = contracts_version + 1 WHERE id = coalesce(NEW.tenant_id, OLD.tenant_id);
    RETURN NULL;
END $$;
CREATE TRIGGER event_types_contracts AFTER INSERT OR UPDATE OR DELETE ON event_types
    FOR EACH ROW EXECUTE FUNCTION bump_contracts_version();

CREATE FUNCTION bump_own_contracts_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.contracts_version := OLD.contracts_version + 1;
    RETURN NEW;
END $$;
CREATE TRIGGER tenants_contracts BEFORE UPDATE ON tenants
    FOR EACH ROW WHEN (OLD.unknown_event_types IS DISTINCT FROM NEW.unknown_event_types)
    EXECUTE FUNCTION bump_own_contracts_version();
