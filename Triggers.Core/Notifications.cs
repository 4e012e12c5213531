namespace Triggers.Core;

/// <summary>
/// Names of the Postgres notification channels. A notification says look, not what; where it says whose, it may also say nobody's.
/// </summary>
public static class Notifications
{
    /// <summary>Events were appended to the Postgres log; its payload says whose, see <see cref="TenantsOf"/>.</summary>
    public const string Events = "triggers_events";

    /// <summary>
    /// Events of the Kafka log came into the inbox; its payload says whose. On the Postgres log the append itself says so.
    /// </summary>
    public const string Inbox = "triggers_inbox";

    /// <summary>
    /// Deliveries became due that no projection made: replays, tests, and what is to be sent now; or a replay job was made.
    /// </summary>
    public const string Deliveries = "triggers_deliveries";

    /// <summary>A subscription changed; raised by the database itself.</summary>
    public const string Subscriptions = "triggers_subscriptions";

    // Postgres takes less than 8,000 bytes.
    private const int MaxTenants = 200;

    /// <summary>The payload of a notification about the things of these tenants; empty, for everybody, when there are too many.</summary>
    public static string TenantsOf(IEnumerable<Guid> tenantIds)
    {
        var distinct = tenantIds.Distinct().Take(MaxTenants + 1).ToArray();
        return distinct.Length > MaxTenants ? "" : string.Join(',', distinct.Select(id => id.ToString("N")));
    }

    /// <summary>Reads such a payload.</summary>
    /// <returns>Whether it names tenants; otherwise it is about everybody's.</returns>
    public static bool TryReadTenants(string payload, out Guid[] tenantIds)
    {
        var parts = payload.Split(',');
        tenantIds = new Guid[parts.Length];
        for (var i = 0; i < parts.Length; i++)
        {
            if (!Guid.TryParseExact(parts[i], "N", out tenantIds[i]))
            {
                tenantIds = [];
                return false;
            }
        }
        return true;
    }
}

/// <summary>Advisory locks, all in one class of their own: <c>pg_advisory_lock(class, key)</c>.</summary>
public static class AdvisoryLocks
{
    /// <summary>The class of the locks that there is one of.</summary>
    public const int Class = 7305;

    /// <summary>Held by an append to the Postgres log until it commits: the order of numbers is the order of commits.</summary>
    public const int Append = 1;

    /// <summary>Held while partitions are made (in the schema's make_partition).</summary>
    public const int Partitions = 2;

    /// <summary>Held while the first tenant and key are ensured.</summary>
    public const int Bootstrap = 3;

    /// <summary>Held while dead letters are published.</summary>
    public const int DeadLetters = 4;

    /// <summary>Held while old partitions are dropped.</summary>
    public const int Retention = 8;

    /// <summary>Held while the indexes of partitions are built.</summary>
    public const int Indexes = 7;

    /// <summary>The class of the locks on events, the key being the hash of their id. See <see cref="State.EventState.Lock"/>.</summary>
    public const int EventClass = 7307;

    /// <summary>
    /// The class of the locks on the order of a subscription's deliveries, the key being the hash of its id. See
    /// <see cref="State.OrderedQueue.Lock"/>.
    /// </summary>
    public const int OrderClass = 7308;

    /// <summary>Held while a tenant is made, so that there are never more than may be.</summary>
    public const int Tenants = 5;

    /// <summary>The class of the locks that living workers hold, the key being their number.</summary>
    public const int WorkerClass = 7306;
}
