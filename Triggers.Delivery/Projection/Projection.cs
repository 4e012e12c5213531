using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Completion;
using Triggers.Delivery.Subscriptions;
using Triggers.Delivery.Waking;
using Triggers.Delivery.Workers;
using Triggers.EventLog;

namespace Triggers.Delivery.Projection;

/// <summary>
/// What follows from accepted events, whichever log they are in: a delivery for each subscription that wants it, or else a place in the
/// inbox. What finds a free place in its lane is attempted at once, before anything is written.
/// </summary>
internal sealed class Projection(
    Subscribers subscribers, Attempter attempter, Completions completions, Lanes lanes, WorkerRegistration worker, Wakeups wakeups,
    IOptions<DeliveryOptions> options, TimeProvider time)
{
    /// <summary>Decides what follows, in the transaction that read the events, and starts what has a place in its lane.</summary>
    public async Task MatchAsync(
        NpgsqlConnection connection, EventBatch batch, Matches matches, CancellationToken cancellationToken)
    {
        await subscribers.RefreshAsync(connection, batch.SubscriptionsVersion, cancellationToken);
        foreach (var (tenantId, e, dataBytes, _) in batch.Events)
        {
            var matching = subscribers.Matching(tenantId, e.Type).ToList();
            if (matching.Count == 0)
                matches.Unmatched.Add((tenantId, e.Id));
            else if (matches.IsFullWith(tenantId, matching.Count))
                matches.Deferred.Add(new FanOut(tenantId, e.Id, dataBytes, Guid.Empty));
            else
                matching.ForEach(subscriber => Add(subscriber, e, dataBytes));

            void Add(Subscriber subscriber, StoredEvent e, int dataBytes)
            {
                var starts = matches.First is not null && !subscriber.IsInbox && dataBytes <= LoggedEvent.MaxCarriedBytes
                    && lanes.TryReserve(subscriber.Id, dataBytes);
                var delivery = matches.Add(subscriber, e.Id, dataBytes, starts);
                if (starts)
                {
                    attempter.Start(
                        new DueDelivery(tenantId, delivery, e.Id, subscriber.Id, Claim: 1, RetryCount: 0,
                            ReplayOf: null, Test: false, time.GetTimestamp(), dataBytes)
                        { First = matches.First }, lanes, e);
                }
            }
        }
    }

    /// <summary>
    /// Writes what follows, and that it is written, and commits. Attempts that have ended by then leave nothing in the queue; the others
    /// are claimed.
    /// </summary>
    public async Task CommitAsync(
        NpgsqlTransaction transaction, Matches matches, IReadOnlyList<NpgsqlBatchCommand> advance, CancellationToken cancellationToken)
    {
        var results = matches.First?.Close() ?? [];
        var settled = matches.Deliveries.Where(d => results.ContainsKey(d.Id)).Select(d => AsNew(d, results[d.Id])).ToList();
        var queued = matches.Deliveries.Where(d => !results.ContainsKey(d.Id)).ToList();
        await using var batch = new NpgsqlBatch(transaction.Connection);
        foreach (var command in settled.Count > 0 ? completions.Write(settled) : [])
            batch.BatchCommands.Add(command);
        if (matches.Unmatched.Count > 0)
            batch.BatchCommands.Add(EventState.Receive(matches.Unmatched));
        if (queued.Count > 0)
            batch.BatchCommands.Add(DeliveryQueue.Enqueue(queued, worker.Number, options.Value.Lease));
        if (matches.Deferred.Count > 0)
            batch.BatchCommands.Add(FanOuts.Defer(matches.Deferred));
        if (matches.WithInbox.Count > 0)
            batch.BatchCommands.Add(Inboxes.Notify(matches.WithInbox));
        foreach (var command in advance)
            batch.BatchCommands.Add(command);
        var mayBeWritten = false;
        try
        {
            var ended = await Completions.ReadAsync(batch, cancellationToken);
            mayBeWritten = true;
            await transaction.CommitAsync(cancellationToken);
            if (settled.Count > 0)
                completions.Written(settled, ended);
        }
        catch
        {
            // Either they are written, or the events are read again.
            settled.ForEach(completions.Forget);
            throw;
        }
        finally
        {
            matches.First?.End(mayBeWritten);
        }
        foreach (var lane in matches.LeftDue)
            lanes.DueIn(lane, TimeSpan.Zero);
        if (matches.LeftDue.Count > 0)
            wakeups.Dispatch.Set();
        if (matches.Deferred.Count > 0)
            wakeups.FanOuts.Set();
    }

    /// <summary>The transaction has ended, whichever way.</summary>
    public void End(FirstAttempts first)
    {
        foreach (var result in first.Close().Values)
            completions.Forget(result);
        first.End(written: false);
    }

    private static Completed AsNew(NewDelivery delivery, Completed completed) =>
        completed with { Result = completed.Result with { IsNew = true, DataBytes = delivery.DataBytes ?? 0 } };
}

/// <summary>What follows from the events of a transaction.</summary>
/// <param name="first">Takes the results of attempts that are made before the transaction ends; null: none are made.</param>
internal sealed class Matches(FirstAttempts? first = null)
{
    /// <summary>
    /// Deliveries made by one transaction. What an event that many subscribe to has beyond that is made in portions of as many.
    /// </summary>
    public const int MaxDeliveries = 1_000;

    /// <summary>What a tenant may have in a transaction that is full.</summary>
    private const int MaxOfTenantBeyond = 50;

    private readonly Dictionary<Guid, int> _ofTenants = [];

    public FirstAttempts? First { get; } = first;

    /// <summary>Events that nobody wants.</summary>
    public List<(Guid TenantId, Guid EventId)> Unmatched { get; } = [];

    /// <summary>Events of which more would follow than there is room for.</summary>
    public List<FanOut> Deferred { get; } = [];

    public List<NewDelivery> Deliveries { get; } = [];

    /// <summary>Lanes in which something waits.</summary>
    public HashSet<Guid> LeftDue { get; } = [];

    /// <summary>Tenants that have something in an inbox.</summary>
    public HashSet<Guid> WithInbox { get; } = [];

    /// <summary>Whether so many more are too many. A tenant that has few so far always has room for a few.</summary>
    public bool IsFullWith(Guid tenantId, int more) =>
        Deliveries.Count + more > MaxDeliveries && _ofTenants.GetValueOrDefault(tenantId) + more > MaxOfTenantBeyond;

    /// <returns>The delivery's id.</returns>
    public Guid Add(Subscriber subscriber, Guid eventId, int dataBytes, bool starts)
    {
        var id = TypeId.NewGuid();
        var tenantId = subscriber.TenantId;
        Deliveries.Add(new NewDelivery(tenantId, id, eventId, subscriber.Id) { DataBytes = dataBytes, Claimed = starts });
        _ofTenants[tenantId] = _ofTenants.GetValueOrDefault(tenantId) + 1;
        if (subscriber.IsInbox)
            WithInbox.Add(tenantId);
        else if (!starts)
            LeftDue.Add(subscriber.Id);
        return id;
    }
}
