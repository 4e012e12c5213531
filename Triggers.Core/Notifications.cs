namespace Triggers.Core;

/// <summary>Names of the Postgres notification channels. A notification carries nothing: it says look, not what.</summary>
public static class Notifications
{
    /// <summary>Events were appended to the Postgres log.</summary>
    public const string Events = "triggers_events";

    /// <summary>Events of the Kafka log came into the inbox. On the Postgres log the append itself says so.</summary>
    public const string Inbox = "triggers_inbox";

    /// <summary>Deliveries became due that no projection made: replays, tests, and what is to be sent now; or a replay job was made.</summary>
    public const string Deliveries = "triggers_deliveries";

    /// <summary>A subscription changed; raised by the database itself.</summary>
    public const string Subscriptions = "triggers_subscriptions";
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

    /// <summary>The class of the locks that living workers hold, the key being their number.</summary>
    public const int WorkerClass = 7306;
}
