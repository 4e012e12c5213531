namespace Triggers.Core.Tables;

/// <summary>What a tenant says of the events of a type.</summary>
public sealed class EventType
{
    /// <summary>Whose it is.</summary>
    public required Guid TenantId { get; init; }

    /// <summary>The type, unique in the tenant.</summary>
    public required string Name { get; init; }

    /// <summary>UUIDv7, shown as <c>typ_…</c>; a type that is deleted and made again is another one.</summary>
    public required Guid Id { get; init; }

    /// <summary>Free text.</summary>
    public string? Description { get; set; }

    /// <summary>The heading it stands under.</summary>
    public string? GroupName { get; set; }

    /// <summary>What becomes of events that don't match the schema.</summary>
    public required ContractMode Mode { get; set; }

    /// <summary>What a new version is held to.</summary>
    public required SchemaCompatibility Compatibility { get; set; }

    /// <summary>The version that events are held to, the newest; 0 while there is none.</summary>
    public int Version { get; set; }

    /// <summary>JSON of the <c>data</c> of such an event.</summary>
    public string? Example { get; set; }

    /// <summary>Why it should not be used any more; null unless it is deprecated.</summary>
    public string? Deprecation { get; set; }

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset CreatedAt { get; init; }

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset UpdatedAt { get; init; }
}

/// <summary>A schema of a type. Never changed.</summary>
public sealed class EventTypeVersion
{
    /// <summary>The type.</summary>
    public required Guid EventTypeId { get; init; }

    /// <summary>Counted from 1.</summary>
    public required int Version { get; init; }

    /// <summary>UUIDv7, what lists are in the order of.</summary>
    public required Guid Id { get; init; }

    /// <summary>JSON Schema 2020-12, as it was sent.</summary>
    public required string Schema { get; init; }

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset CreatedAt { get; init; }
}

/// <summary>What becomes of events that don't match the schema of their type.</summary>
public enum ContractMode
{
    /// <summary>They are not looked at.</summary>
    Off,

    /// <summary>They are accepted, counted, and shown.</summary>
    Warn,

    /// <summary>They are refused.</summary>
    Enforce,
}

/// <summary>What a new version of a schema is held to, beside the one before.</summary>
public enum SchemaCompatibility
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>What matched the one before matches the new one: who reads by the new one reads old events.</summary>
    Backward,

    /// <summary>What matches the new one matched the one before: who reads by the old one reads new events.</summary>
    Forward,

    /// <summary>Both.</summary>
    Full,
}

/// <summary>What becomes of events of a type that the tenant has not described.</summary>
public enum UnknownEventTypes
{
    /// <summary>They are accepted.</summary>
    Allow,

    /// <summary>They are refused.</summary>
    Refuse,
}
