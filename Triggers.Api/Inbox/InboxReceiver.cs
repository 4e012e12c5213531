using Npgsql;
using Triggers.Api.Http;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;

namespace Triggers.Api.Inbox;

/// <summary>What became of a lease.</summary>
internal enum LeaseStatus
{
    /// <summary>It is delivered, now or before.</summary>
    Acknowledged,

    /// <summary>Somebody else may receive it.</summary>
    Released,

    /// <summary>It is a dead letter, now or before.</summary>
    Rejected,

    /// <summary>It is kept for longer.</summary>
    Extended,

    /// <summary>It ended, and the delivery is somebody else's, or nobody's.</summary>
    LeaseLost,

    /// <summary>The inbox has no such delivery.</summary>
    NotFound,
}

/// <summary>What is asked for.</summary>
/// <param name="Inbox">Where.</param>
/// <param name="Max">The most items.</param>
/// <param name="Lease">How long they are nobody else's.</param>
/// <param name="Types">Patterns of types; none for all.</param>
internal sealed record ReceiveRequest(Subscription Inbox, int Max, TimeSpan Lease, string[] Types);

/// <summary>Receives from inboxes, and says what became of what was received. Nothing is known between two requests.</summary>
internal sealed class InboxReceiver(NpgsqlDataSource dataSource)
{
    /// <summary>Events of an answer hold at most this much data together, but for a single one that has more.</summary>
    private const int MaxBytes = 8 * 1024 * 1024;

    /// <summary>How often more is received in place of what was given out too often, in one look.</summary>
    private const int MaxRounds = 10;

    /// <summary>Receives what is due; when nothing is, in how long something will be.</summary>
    public async Task<(IReadOnlyList<ReceivedItem> Items, TimeSpan? DueIn)> ReceiveAsync(
        ReceiveRequest request, CancellationToken cancellationToken)
    {
        for (var round = 1; ; round++)
        {
            var (items, ended, dueIn) = await ClaimAsync(request, cancellationToken);
            if (ended.Count > 0)
                await EndAsync(ended, cancellationToken);
            if (items.Count > 0 || ended.Count == 0)
                return (items, dueIn);
            // Behind those there may be more.
            if (round == MaxRounds)
                return (items, TimeSpan.Zero);
        }
    }

    /// <summary>Deliveries succeed.</summary>
    public Task<Dictionary<Lease, LeaseStatus>> AcknowledgeAsync(
        Subscription inbox, IReadOnlyList<Lease> leases, CancellationToken cancellationToken) =>
        SettleAsync(inbox, leases, LeaseStatus.Acknowledged, held => held with { Status = DeliveryStatus.Succeeded }, cancellationToken);

    /// <summary>Deliveries are due again, to be received by anybody.</summary>
    public Task<Dictionary<Lease, LeaseStatus>> ReleaseAsync(
        Subscription inbox, IReadOnlyList<Lease> leases, TimeSpan delay, CancellationToken cancellationToken) =>
        SettleAsync(
            inbox, leases, LeaseStatus.Released,
            held => held with { Status = DeliveryStatus.Pending, Delay = delay, CountsAsFailure = true }, cancellationToken);

    /// <summary>Deliveries become dead letters.</summary>
    public Task<Dictionary<Lease, LeaseStatus>> RejectAsync(
        Subscription inbox, IReadOnlyList<Lease> leases, string? reason, CancellationToken cancellationToken) =>
        SettleAsync(
            inbox, leases, LeaseStatus.Rejected,
            held => held with
            {
                Status = DeliveryStatus.DeadLettered,
                Reason = "rejected",
                Error = reason,
                CountsAsFailure = true,
            },
            cancellationToken);

    /// <summary>Leases end later.</summary>
    public async Task<Dictionary<Lease, LeaseStatus>> ExtendAsync(
        Subscription inbox, IReadOnlyList<Lease> leases, TimeSpan lease, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        var extended = new HashSet<Lease>();
        var command = Inboxes.Extend(inbox.TenantId, inbox.Id, leases, lease);
        await using (var batch = new NpgsqlBatch(connection) { BatchCommands = { command } })
        await using (var reader = await batch.ExecuteReaderAsync(cancellationToken))
        {
            while (await reader.ReadAsync(cancellationToken))
                extended.Add(new Lease(reader.GetGuid(0), reader.GetInt32(1)));
        }
        return await ResultsAsync(connection, inbox, leases, extended, LeaseStatus.Extended, cancellationToken);
    }

    /// <summary>Receives once: items, and what is not to be given out any more.</summary>
    private async Task<(List<ReceivedItem> Items, List<DeliveryResult> Ended, TimeSpan? DueIn)> ClaimAsync(
        ReceiveRequest request, CancellationToken cancellationToken)
    {
        var inbox = request.Inbox;
        await using var batch = dataSource.CreateBatch();
        if (inbox.Inbox == Inboxes.Default)
        {
            Guid[] ids = [.. Enumerable.Range(0, request.Max).Select(_ => TypeId.NewGuid())];
            batch.BatchCommands.Add(Inboxes.Fill(inbox.TenantId, inbox.Id, ids, request.Types));
        }
        batch.BatchCommands.Add(Inboxes.Receive(inbox.TenantId, inbox.Id, request.Max, MaxBytes, request.Lease, request.Types));
        batch.BatchCommands.Add(Inboxes.NextDue(inbox.Id, request.Types));
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        var items = new List<ReceivedItem>();
        var ended = new List<DeliveryResult>();
        while (await reader.ReadAsync(cancellationToken))
        {
            var lease = new Lease(reader.GetGuid(0), reader.GetInt32(2));
            var isGone = reader.IsDBNull(5);
            if (isGone || lease.Claim > inbox.MaxDeliveries)
            {
                ended.Add(new DeliveryResult(
                    inbox.TenantId, lease.Id, reader.GetGuid(1), inbox.Id, lease.Claim,
                    isGone ? DeliveryStatus.Cancelled : DeliveryStatus.DeadLettered, null)
                {
                    Reason = isGone ? null : "exhausted",
                    IsReplay = reader.GetBoolean(4),
                });
                continue;
            }
            items.Add(new ReceivedItem(
                LeaseToken.Format(lease), reader.GetFieldValue<DateTimeOffset>(3), lease.Claim,
                new ReceivedEvent(StoredEvent.Read(reader, 5))));
        }
        await reader.NextResultAsync(cancellationToken);
        TimeSpan? dueIn = await reader.ReadAsync(cancellationToken) && !reader.IsDBNull(0)
            ? TimeSpan.FromSeconds(Math.Max(0, reader.GetDouble(0))) : null;
        return (items, ended, dueIn);
    }

    private async Task EndAsync(List<DeliveryResult> ended, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        await ApplyAsync(connection, ended, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
    }

    private async Task<Dictionary<Lease, LeaseStatus>> SettleAsync(
        Subscription inbox, IReadOnlyList<Lease> leases, LeaseStatus done, Func<DeliveryResult, DeliveryResult> becomes,
        CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        var held = new List<DeliveryResult>();
        await using (var transaction = await connection.BeginTransactionAsync(cancellationToken))
        {
            await using (var batch = new NpgsqlBatch(connection))
            {
                foreach (var command in Inboxes.Hold(inbox.TenantId, inbox.Id, leases))
                    batch.BatchCommands.Add(command);
                await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
                await reader.NextResultAsync(cancellationToken);
                while (await reader.ReadAsync(cancellationToken))
                {
                    held.Add(becomes(new DeliveryResult(
                        inbox.TenantId, reader.GetGuid(0), reader.GetGuid(2), inbox.Id, reader.GetInt32(1), DeliveryStatus.Pending, null)
                    { IsReplay = reader.GetBoolean(3) }));
                }
            }
            if (held.Count > 0)
                await ApplyAsync(connection, held, cancellationToken, done == LeaseStatus.Released ? inbox.TenantId : null);
            await transaction.CommitAsync(cancellationToken);
        }
        return await ResultsAsync(connection, inbox, leases, [.. held.Select(h => new Lease(h.Id, h.Claim))], done, cancellationToken);
    }

    private static async Task ApplyAsync(
        NpgsqlConnection connection, List<DeliveryResult> results, CancellationToken cancellationToken, Guid? wake = null)
    {
        results.Sort((a, b) => a.Id.CompareTo(b.Id));
        await using var batch = new NpgsqlBatch(connection);
        foreach (var command in DeliveryResults.Apply(results))
            batch.BatchCommands.Add(command);
        if (wake is { } tenantId)
            batch.BatchCommands.Add(Inboxes.Notify([tenantId]));
        await batch.ExecuteNonQueryAsync(cancellationToken);
    }

    /// <summary>What is to be said of each: a request that is repeated, because its answer was lost, is answered as before.</summary>
    private static async Task<Dictionary<Lease, LeaseStatus>> ResultsAsync(
        NpgsqlConnection connection, Subscription inbox, IReadOnlyList<Lease> leases, HashSet<Lease> held, LeaseStatus done,
        CancellationToken cancellationToken)
    {
        var results = leases.ToDictionary(l => l, l => held.Contains(l) ? done : LeaseStatus.NotFound);
        if (leases.Where(l => !held.Contains(l)).ToList() is not { Count: > 0 } missing)
            return results;
        var before = done switch
        {
            LeaseStatus.Acknowledged => "succeeded",
            LeaseStatus.Rejected => "dead_lettered",
            LeaseStatus.Released => "released",
            _ => null,
        };
        var known = new Dictionary<Guid, (int Claim, string Status)>();
        await using (var batch = new NpgsqlBatch(connection) { BatchCommands = { Inboxes.Lost(inbox.TenantId, inbox.Id, missing) } })
        await using (var reader = await batch.ExecuteReaderAsync(cancellationToken))
        {
            while (await reader.ReadAsync(cancellationToken))
                known[reader.GetGuid(0)] = (reader.GetInt32(1), reader.GetString(2));
        }
        foreach (var lease in missing.Where(l => known.ContainsKey(l.Id)))
            results[lease] = known[lease.Id] == (lease.Claim, before) ? done : LeaseStatus.LeaseLost;
        return results;
    }
}
