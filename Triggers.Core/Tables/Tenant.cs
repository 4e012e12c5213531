namespace Triggers.Core.Tables;

/// <summary>Whose data it is. Every other row belongs to one tenant.</summary>
public sealed class Tenant
{
    /// <summary>The name of the tenant that exists from the first start.</summary>
    public const string DefaultName = "default";

    /// <summary>UUIDv7, shown as <c>ten_…</c>.</summary>
    public required Guid Id { get; init; }

    /// <summary>Unique, 1–128 characters.</summary>
    public required string Name { get; set; }

    /// <summary>The plan whose limits hold for all its keys together; null takes the service's defaults.</summary>
    public Guid? UsagePlanId { get; set; }

    /// <summary>What becomes of events of types that it has not described.</summary>
    public UnknownEventTypes UnknownEventTypes { get; set; }

    /// <summary>Grows with every change of its event types; 0: it has none, and there is nothing to hold events to.</summary>
    public long ContractsVersion { get; init; }

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset CreatedAt { get; init; }
}

/// <summary>A credential of a tenant. The secret itself is never stored.</summary>
public sealed class ApiKey
{
    /// <summary>UUIDv7, shown as <c>key_…</c>.</summary>
    public required Guid Id { get; init; }

    /// <summary>The tenant it speaks for.</summary>
    public required Guid TenantId { get; init; }

    /// <summary>What people call it.</summary>
    public required string Name { get; set; }

    /// <summary>The first characters of the secret, to recognise it by.</summary>
    public required string Prefix { get; set; }

    /// <summary>SHA-256 of the secret.</summary>
    public required byte[] Hash { get; set; }

    /// <summary>What it may do, as in <c>events:write</c>.</summary>
    public required string[] Scopes { get; set; }

    /// <summary>Sustained requests a second, within those of its tenant; null without a limit of its own.</summary>
    public int? RequestsPerSecond { get; set; }

    /// <summary>How many requests may come at once, within those of its tenant; null takes two seconds' worth.</summary>
    public int? Burst { get; set; }

    /// <summary>The key that it shares its own limit with; null for itself.</summary>
    public Guid? LimitId { get; set; }

    /// <summary>Set when <c>Auth:BootstrapAdminKey</c> names it (<c>current</c>), or named it before (<c>replaced</c>).</summary>
    public string? Bootstrap { get; set; }

    /// <summary>Not accepted from then on.</summary>
    public DateTimeOffset? ExpiresAt { get; set; }

    /// <summary>Last request, to about a minute.</summary>
    public DateTimeOffset? LastUsedAt { get; set; }

    /// <summary>Not accepted since then.</summary>
    public DateTimeOffset? RevokedAt { get; set; }

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset CreatedAt { get; init; }
}

/// <summary>Limits with a name, for any number of tenants: each has them for itself, all its keys together.</summary>
public sealed class UsagePlan
{
    /// <summary>UUIDv7, shown as <c>pln_…</c>.</summary>
    public required Guid Id { get; init; }

    /// <summary>Unique, 1–128 characters.</summary>
    public required string Name { get; set; }

    /// <summary>Sustained requests a second.</summary>
    public required int RequestsPerSecond { get; set; }

    /// <summary>How many requests may come at once.</summary>
    public required int Burst { get; set; }

    /// <summary>Sustained events a second; null for any number.</summary>
    public int? EventsPerSecond { get; set; }

    /// <summary>Sustained bytes of events a second; null for any number.</summary>
    public int? BytesPerSecond { get; set; }

    /// <summary>Events in a day (UTC); null for any number.</summary>
    public int? EventsPerDay { get; set; }

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset CreatedAt { get; init; }
}
