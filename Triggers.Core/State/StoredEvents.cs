using System.Globalization;
using Npgsql;
using NpgsqlTypes;
using Triggers.Core.Tables;

namespace Triggers.Core.State;

/// <summary>The statements that store events, whichever way they come.</summary>
public static class StoredEvents
{
    /// <summary>The columns of an event, in the order in which every insertion names them.</summary>
    public const string Columns = "tenant_id, id, external_id, type, source, subject, time, correlation_id, trace_parent, data, "
        + "deliver_at, expires_at";

    /// <summary>Appends to the Postgres log: in the order of <c>ord</c>, by numbers taken under the append lock.</summary>
    /// <param name="rows">A query for <see cref="Columns"/>, in order.</param>
    public static string Append(string rows) =>
        $"INSERT INTO events (seq, {Columns}) SELECT nextval('events_seq'), i.* FROM ({rows}) i";

    /// <summary>
    /// An id below which no event is added to the Postgres log any more. Ids are given when a transaction begins that appends; those under
    /// way hold the append lock, or wait for it. What is read by a later statement is complete below.
    /// </summary>
    public static readonly string Complete = string.Create(CultureInfo.InvariantCulture,
        $"""
        (SELECT uuid_at(least(clock_timestamp(), min(a.xact_start)) - interval '{RequestBudget.Clocks.TotalSeconds} seconds')
         FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'advisory' AND l.classid = {AdvisoryLocks.Class} AND l.objid = {AdvisoryLocks.Append} AND l.objsubid = 2
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
        """);

    /// <summary>Stores what another log gave, as far as it is not stored yet.</summary>
    /// <param name="rows">A query for <see cref="Columns"/>.</param>
    public static string Store(string rows) => $"INSERT INTO events ({Columns}) {rows} ON CONFLICT DO NOTHING";

    /// <summary>One event with its data; null when there is none.</summary>
    internal static async Task<StoredEvent?> ReadAsync(
        NpgsqlConnection connection, Guid tenantId, Guid id, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            $"SELECT {StoredEvent.Columns} FROM events e WHERE e.tenant_id = @tenant AND e.id = @id", connection);
        command.Parameters.AddWithValue("tenant", tenantId);
        command.Parameters.AddWithValue("id", id);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        return await reader.ReadAsync(cancellationToken) ? StoredEvent.Read(reader, 0) : null;
    }

    /// <summary>The event of a subscription's test, and its one delivery.</summary>
    public static IEnumerable<NpgsqlBatchCommand> Test(Event e, Guid deliveryId, Guid subscriptionId)
    {
        foreach (var command in OfTheSystem(e))
            yield return command;
        yield return DeliveryQueue.Enqueue(
            [new NewDelivery(e.TenantId, deliveryId, e.Id, subscriptionId) { DataBytes = e.Data.Length, Test = true }]);
    }

    /// <summary>An event of the system's own, and its deliveries.</summary>
    /// <param name="e">The event.</param>
    /// <param name="subscriptions">At least one, with their keys where they get it in order.</param>
    public static IEnumerable<NpgsqlBatchCommand> Tell(Event e, IEnumerable<(Guid Id, string? OrderKey)> subscriptions)
    {
        foreach (var command in OfTheSystem(e))
            yield return command;
        foreach (var command in DeliveryQueue.EnqueueAll([.. subscriptions.Select(s =>
            new NewDelivery(e.TenantId, TypeId.NewGuid(), e.Id, s.Id) { DataBytes = e.Data.Length, OrderKey = s.OrderKey })]))
            yield return command;
        yield return new NpgsqlBatchCommand($"SELECT pg_notify('{Notifications.Deliveries}', '')");
    }

    /// <summary>
    /// An event that is nobody's but those subscriptions' to which it is sent: it has no place in a log, so that nothing else matches it,
    /// and counts as acknowledged, so that it is in no inbox.
    /// </summary>
    private static IEnumerable<NpgsqlBatchCommand> OfTheSystem(Event e)
    {
        yield return new NpgsqlBatchCommand(
            $"INSERT INTO events ({Columns}) VALUES (@tenant, @id, NULL, @type, NULL, NULL, NULL, @correlation, @trace, @data, NULL, NULL)")
        {
            Parameters =
            {
                new("tenant", e.TenantId), new("id", e.Id), new("type", e.Type), new("correlation", e.CorrelationId),
                new("trace", NpgsqlDbType.Text) { Value = (object?)e.TraceParent ?? DBNull.Value }, new("data", e.Data),
            },
        };
        yield return new NpgsqlBatchCommand("INSERT INTO acknowledgements (tenant_id, event_id) VALUES (@tenant, @id)")
        {
            Parameters = { new("tenant", e.TenantId), new("id", e.Id) },
        };
    }
}
