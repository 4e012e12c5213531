using Npgsql;
using Triggers.Core.State;

namespace Triggers.EventLog;

/// <summary>
/// A log as the projection reads it, in order, one batch at a time. Where to go on is a position in Postgres, which the projection's
/// transaction locks, and advances with what it writes: so a batch that is read twice changes nothing. Used by one loop.
/// </summary>
internal interface IEventSource
{
    /// <summary>The log's name in metrics and traces, <c>postgres</c> or <c>kafka</c>.</summary>
    string Name { get; }

    /// <summary>Waits until there may be something to read. No transaction is open.</summary>
    /// <exception cref="EventLogUnavailableException">The log is away.</exception>
    Task WaitAsync(NpgsqlConnection connection, CancellationToken cancellationToken);

    /// <summary>
    /// Locks the position and reads what comes after it, in the transaction that is to write what follows. It is in <c>events</c> then.
    /// </summary>
    /// <param name="connection">Of the transaction.</param>
    /// <param name="limit">The most records.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <returns>
    /// Null when there is nothing, when another process has the position, or when that is not where this process left it.
    /// </returns>
    Task<EventBatch?> ReadAsync(NpgsqlConnection connection, int limit, CancellationToken cancellationToken);

    /// <summary>Waits, in the transaction, for more to read.</summary>
    /// <returns>Whether there may be more for this transaction.</returns>
    Task<bool> MoreAsync(TimeSpan atMost, CancellationToken cancellationToken);

    /// <summary>What was read last, in one transaction, is committed.</summary>
    void Passed();

    /// <summary>
    /// Postgres refuses the first record of what was read last, or what follows from it. It is kept where somebody can look at it, and is
    /// read from now on as one that says nothing.
    /// </summary>
    /// <exception cref="EventLogUnavailableException">The log is away.</exception>
    /// <exception cref="InvalidOperationException">It is refused even so.</exception>
    Task SetAsideAsync(PostgresException refusal, CancellationToken cancellationToken);

    /// <summary>Nothing more is read: others may take over at once.</summary>
    void Leave();
}

/// <summary>A part of a log.</summary>
/// <param name="Events">Those that were not projected before, in the order of the log.</param>
/// <param name="SubscriptionsVersion">As it was after the events were accepted.</param>
/// <param name="SetAside">How many of the records say nothing, and are kept elsewhere.</param>
/// <param name="Advance">For the end of the transaction: the position passes all that it has read.</param>
internal sealed record EventBatch(
    IReadOnlyList<LoggedEvent> Events, long SubscriptionsVersion, int SetAside, params IReadOnlyList<NpgsqlBatchCommand> Advance);

/// <summary>An event that a log gave for the first time.</summary>
/// <param name="TenantId">Whose it is.</param>
/// <param name="Event">Without its data where that is larger than <see cref="MaxCarriedBytes"/>.</param>
/// <param name="DataBytes">Length of its data.</param>
/// <param name="Partition">Of the log; 0 where it has none.</param>
internal sealed record LoggedEvent(Guid TenantId, StoredEvent Event, int DataBytes, int Partition = 0)
{
    /// <summary>Larger data is not carried through the projection: it is read when its turn comes.</summary>
    public const int MaxCarriedBytes = 64 * 1024;
}
