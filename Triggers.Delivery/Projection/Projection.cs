using System.Text.Json;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
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
    Subscribers subscribers, Attempter attempter, Completions completions, Circuits.Circuits circuits, Lanes lanes,
    WorkerRegistration worker, Wakeups wakeups,
    IOptions<DeliveryOptions> options, TimeProvider time)
{
    /// <summary>What finds a place within that time is waited for: to write it first costs more.</summary>
    private static readonly TimeSpan s_worthwhile = TimeSpan.FromMilliseconds(50);

    /// <summary>How many steps the filters of those have together, for one event, who get it in order.</summary>
    private const int MaxFilterStepsInOrder = 2 * SubscriptionFilter.MaxSteps;

    /// <summary>Ends when there is a number to claim by, and nothing is sent that is to be held.</summary>
    public Task Ready => Task.WhenAll(worker.Registered, circuits.Known);

    /// <summary>Decides what follows, in the transaction that read the events, and starts what has a place in its lane.</summary>
    public async Task MatchAsync(
        NpgsqlConnection connection, EventBatch batch, Matches matches, CancellationToken cancellationToken)
    {
        await subscribers.RefreshAsync(connection, batch.SubscriptionsVersion, cancellationToken);
        var cancelled = batch.Events.Any(logged => logged.Event.DeliverAt is not null)
            ? await CancelledAsync(connection, batch.Events, cancellationToken) : null;
        foreach (var (tenantId, e, dataBytes, _) in batch.Events)
        {
            if (cancelled?.Contains(e.Id) is true)
                continue;
            var matching = subscribers.Matching(tenantId, e.Type).ToList();
            var isFiltered = !matching.Exists(subscriber => subscriber.Filter is not null)
                || await FilterAsync(connection, tenantId, e, dataBytes, matching, matches, cancellationToken);
            if (matching.Count == 0)
                matches.Unmatched.Add(new UnclaimedEvent(tenantId, e.Id, e.DeliverAt, e.ExpiresAt));
            // Never later than the log is read: that is the order.
            var inOrder = new List<Guid>();
            matching.RemoveAll(subscriber => AddInOrder(subscriber, e, dataBytes));
            if (matching.Count > 0 && (!isFiltered || matches.IsFullWith(tenantId, matching.Count)))
                matches.Deferred.Add(new FanOut(tenantId, e.Id, dataBytes, Guid.Empty) { Made = inOrder });
            else
                matching.ForEach(subscriber => Add(subscriber, e, dataBytes));

            bool AddInOrder(Subscriber subscriber, StoredEvent e, int dataBytes)
            {
                if (OrderKeyOf(subscriber, e) is not { } key)
                    return false;
                matches.AddInOrder(subscriber, e.Id, dataBytes, key, e.ExpiresAt);
                inOrder.Add(subscriber.Id);
                return true;
            }

            void Add(Subscriber subscriber, StoredEvent e, int dataBytes)
            {
                if (matches.First is not null && !subscriber.IsInbox && subscriber.Batch is null
                    && dataBytes <= LoggedEvent.MaxCarriedBytes && !e.IsTimed)
                    matches.AddWaiting(subscriber, e, dataBytes);
                else
                    matches.Add(subscriber, e.Id, dataBytes, e.DeliverAt, e.ExpiresAt);
            }
        }
        StartWaiting(matches);
    }

    /// <summary>Starts what now has a place in its lane, of each lane in the order of the log.</summary>
    public void StartWaiting(Matches matches)
    {
        var full = new Dictionary<Guid, int>();
        matches.Waiting.RemoveAll(waiting =>
        {
            var (delivery, e) = waiting;
            var (lane, bytes) = (delivery.SubscriptionId, delivery.DataBytes ?? 0);
            if (full.TryGetValue(lane, out var others) || !lanes.TryReserve(lane, bytes))
            {
                full[lane] = others + 1;
                return false;
            }
            matches.Started.Add(delivery with { Claimed = true });
            attempter.Start(
                new DueDelivery(delivery.TenantId, delivery.Id, delivery.EventId, lane, Claim: 1, RetryCount: 0,
                    ReplayOf: null, Test: false, time.GetTimestamp(), bytes)
                { First = matches.First }, lanes, e);
            return true;
        });
        matches.Next = 0;
        foreach (var (lane, waiting) in full)
        {
            lanes.Want(lane, waiting);
            if (lanes.WillStart(lane, waiting, s_worthwhile))
                matches.Next += waiting;
        }
    }

    /// <summary>Whether attempts of a lane are not ended that are likely to be within that time, all of them.</summary>
    public bool WillLand(Matches matches, long openedAt, TimeSpan within)
    {
        var inFlight = matches.First!.NotEnded(matches.Started).Concat(matches.Waiting.Select(w => w.Delivery))
            .CountBy(delivery => delivery.SubscriptionId);
        return inFlight.Any(lane => lanes.WillEnd(lane.Key, lane.Value, openedAt, within));
    }

    /// <summary>
    /// Writes what follows, and that it is written, and commits. Attempts that have ended by then leave nothing in the queue; the others
    /// are claimed.
    /// </summary>
    public async Task CommitAsync(
        NpgsqlTransaction transaction, Matches matches, IReadOnlyList<NpgsqlBatchCommand> advance, CancellationToken cancellationToken)
    {
        var results = matches.First?.Close() ?? [];
        var settled = matches.Started.Where(d => results.ContainsKey(d.Id)).Select(d => AsNew(d, results[d.Id])).ToList();
        var left = matches.Left;
        List<NewDelivery> queued =
            [
                .. matches.Started.Where(d => !results.ContainsKey(d.Id)), .. left, .. matches.Gathered, .. matches.Scheduled,
                .. matches.Pulled,
            ];
        await using var batch = new NpgsqlBatch(transaction.Connection);
        foreach (var command in completions.Write(settled))
            batch.BatchCommands.Add(command);
        if (matches.Unmatched.Count > 0)
            batch.BatchCommands.Add(EventState.Receive(matches.Unmatched));
        if (queued.Count > 0)
            batch.BatchCommands.Add(DeliveryQueue.Enqueue(queued, worker.Number, options.Value.Lease));
        if (matches.Deferred.Count > 0)
            batch.BatchCommands.Add(FanOuts.Defer(matches.Deferred));
        if (matches.InOrder.Count > 0)
        {
            batch.BatchCommands.Add(OrderedQueue.Lock(matches.InOrder.Select(d => d.SubscriptionId)));
            batch.BatchCommands.Add(OrderedQueue.Enqueue(matches.InOrder));
        }
        if (matches.Pulled.Count > 0)
            batch.BatchCommands.Add(Inboxes.Notify(matches.Pulled.Select(d => d.TenantId)));
        foreach (var command in advance)
            batch.BatchCommands.Add(command);
        // Last: an event of which a first attempt was cancelled may be about to reach others, and only now the queue has them.
        foreach (var command in Completions.Settle(settled))
            batch.BatchCommands.Add(command);
        var mayBeWritten = false;
        List<Guid> due;
        try
        {
            (var ended, due) = await Completions.ReadAsync(batch, cancellationToken);
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
        foreach (var lane in left.Select(d => d.SubscriptionId).Concat(due).Distinct())
            lanes.DueIn(lane, TimeSpan.Zero);
        foreach (var lane in matches.Gathered.Concat(matches.InOrder.Where(d => d.Gathers is not null)).GroupBy(d => d.SubscriptionId))
            lanes.Gather(
                lane.Key, lane.Count(), lane.Sum(d => (long)(d.DataBytes ?? 0)), options.Value.BatchBytes, lane.First().Gathers!.Value);
        // What is due later than the next sweep is found by one.
        foreach (var (lane, at) in matches.Scheduled.Select(d => (d.SubscriptionId, d.DeliverAt!.Value)))
            lanes.DueIn(lane, at - time.GetUtcNow());
        if (left.Count + due.Count + matches.Scheduled.Count + matches.Gathered.Count > 0)
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

    /// <summary>Those of a batch that were taken back before they were read. The others are not while the transaction lasts.</summary>
    private static async Task<HashSet<Guid>> CancelledAsync(
        NpgsqlConnection connection, IReadOnlyList<LoggedEvent> events, CancellationToken cancellationToken)
    {
        var scheduled = events.Where(logged => logged.Event.DeliverAt is not null)
            .Select(logged => (logged.TenantId, logged.Event.Id)).ToList();
        var cancelled = scheduled.Select(e => e.Id).ToHashSet();
        await using var batch = new NpgsqlBatch(connection) { BatchCommands = { EventTimes.NotCancelled(scheduled) } };
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
            cancelled.Remove(reader.GetGuid(0));
        return cancelled;
    }

    /// <summary>
    /// The key by which a subscriber gets an event in order; null where it does not. What is scheduled takes its place when its time has
    /// come, and holds up nothing until then.
    /// </summary>
    private static string? OrderKeyOf(Subscriber subscriber, StoredEvent e) =>
        e.DeliverAt is null ? subscriber.OrderKeyOf(e.Subject) : null;

    /// <summary>
    /// Leaves those whose filters the event matches, as far as the tenant's filters have steps left. Those who get it in order can't be
    /// left for later: their filters have steps of their own, beyond which what is not decided counts as if it held.
    /// </summary>
    /// <returns>Whether all are decided.</returns>
    private static async Task<bool> FilterAsync(
        NpgsqlConnection connection, Guid tenantId, StoredEvent e, int dataBytes, List<Subscriber> matching, Matches matches,
        CancellationToken cancellationToken)
    {
        var steps = matches.FilterSteps.GetValueOrDefault(tenantId, Matches.MaxFilterSteps);
        if (steps < 0 && !matching.Exists(subscriber => OrderKeyOf(subscriber, e) is not null))
            return false;
        using var json = await ReadDataAsync(connection, tenantId, e, dataBytes, matching, cancellationToken);
        steps -= StepsOf(json, dataBytes);
        var stepsInOrder = MaxFilterStepsInOrder;
        matching.RemoveAll(subscriber => subscriber.Filter is { } filter && !(OrderKeyOf(subscriber, e) is null
            ? steps < 0 || filter.Matches(e.Subject, e.Source, json?.RootElement ?? default, ref steps)
            : filter.Matches(e.Subject, e.Source, json?.RootElement ?? default, ref stepsInOrder)));
        matches.FilterSteps[tenantId] = steps;
        return steps >= 0;
    }

    /// <summary>The data of an event, where a filter asks for it and it is JSON.</summary>
    /// <param name="connection">Where the data is that was not carried here.</param>
    /// <param name="tenantId">Whose event it is.</param>
    /// <param name="e">The event.</param>
    /// <param name="dataBytes">The length of its data.</param>
    /// <param name="subscribers">Those whose filters may ask.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public static async Task<JsonDocument?> ReadDataAsync(
        NpgsqlConnection connection, Guid tenantId, StoredEvent e, int dataBytes, List<Subscriber> subscribers,
        CancellationToken cancellationToken)
    {
        if (!e.HoldsJson || !subscribers.Exists(subscriber => subscriber.Filter is { NeedsData: true }))
            return null;
        var data = e.Data.Length < dataBytes
            ? (await StoredEvents.ReadAsync(connection, tenantId, e.Id, cancellationToken))?.Data ?? [] : e.Data;
        return data.Length == 0 ? null : JsonDocument.Parse(data);
    }

    /// <summary>What it took to read that, in the steps of filters. However large it is, as many are left to look at it.</summary>
    public static int StepsOf(JsonDocument? data, int dataBytes) =>
        data is null ? 0 : Math.Min(dataBytes / 32, Matches.MaxFilterSteps / 2);

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

    /// <summary>
    /// How many steps the filters of a tenant have in one transaction. Events beyond that are left to
    /// <see cref="FanOutLoop"/>, which goes on with them by as many at a time: so nobody waits for them.
    /// </summary>
    public const int MaxFilterSteps = 20 * SubscriptionFilter.MaxSteps;

    /// <summary>What a tenant may have in a transaction that is full.</summary>
    private const int MaxOfTenantBeyond = 50;

    private readonly Dictionary<Guid, int> _ofTenants = [];
    private readonly List<NewDelivery> _later = [];

    public FirstAttempts? First { get; } = first;

    /// <summary>Events that nobody wants.</summary>
    public List<UnclaimedEvent> Unmatched { get; } = [];

    /// <summary>How many of those steps are left to tenants that used some; below zero where they were too few.</summary>
    public Dictionary<Guid, int> FilterSteps { get; } = [];

    /// <summary>Events of which more would follow than there is room for, or of which it is not decided who wants them.</summary>
    public List<FanOut> Deferred { get; } = [];

    /// <summary>Deliveries whose attempt has been started.</summary>
    public List<NewDelivery> Started { get; } = [];

    /// <summary>Deliveries whose attempt may be started before the transaction ends, once there is a place in the lane.</summary>
    public List<(NewDelivery Delivery, StoredEvent Event)> Waiting { get; } = [];

    /// <summary>How many of these are likely to find a place soon. They are the ones worth waiting for.</summary>
    public int Next { get; set; }

    /// <summary>Deliveries of which only the first of a key is due, in the order of the log.</summary>
    public List<NewDelivery> InOrder { get; } = [];

    /// <summary>Deliveries that wait for others to go with, in one request.</summary>
    public List<NewDelivery> Gathered { get; } = [];

    /// <summary>Deliveries that wait for their time.</summary>
    public List<NewDelivery> Scheduled { get; } = [];

    /// <summary>Deliveries that wait in inboxes.</summary>
    public List<NewDelivery> Pulled { get; } = [];

    /// <summary>Deliveries that are left to the claims: those that never could start here, and those that have not.</summary>
    public List<NewDelivery> Left => [.. _later, .. Waiting.Select(w => w.Delivery)];

    /// <summary>Whether the claims are waited for.</summary>
    public bool IsLeftDue => _later.Count > 0 || InOrder.Count > 0 && Started.Count == 0 && Waiting.Count == 0;

    /// <summary>How many deliveries there are.</summary>
    public int Count =>
        Started.Count + Waiting.Count + _later.Count + InOrder.Count + Gathered.Count + Scheduled.Count + Pulled.Count;

    /// <summary>How many tenants have any.</summary>
    public int Tenants => _ofTenants.Count;

    /// <summary>Whether so many more are too many. A tenant that has few so far always has room for a few.</summary>
    public bool IsFullWith(Guid tenantId, int more) =>
        Count + more > MaxDeliveries && _ofTenants.GetValueOrDefault(tenantId) + more > MaxOfTenantBeyond;

    /// <summary>A delivery that is left to the claims, or to whoever receives it.</summary>
    public void Add(Subscriber subscriber, Guid eventId, int dataBytes, DateTimeOffset? deliverAt, DateTimeOffset? expiresAt)
    {
        var delivery = New(subscriber, eventId, dataBytes) with { DeliverAt = deliverAt, ExpiresAt = expiresAt };
        if (subscriber.IsInbox)
            Pulled.Add(delivery);
        else if (deliverAt is not null)
            Scheduled.Add(delivery with { Gathers = null });
        else
            (subscriber.Batch is null ? _later : Gathered).Add(delivery);
    }

    /// <summary>A delivery that waits for all before it of its key.</summary>
    public void AddInOrder(Subscriber subscriber, Guid eventId, int dataBytes, string key, DateTimeOffset? expiresAt) =>
        InOrder.Add(New(subscriber, eventId, dataBytes) with { OrderKey = key, ExpiresAt = expiresAt });

    /// <summary>A delivery that is started when its lane has a place.</summary>
    public void AddWaiting(Subscriber subscriber, StoredEvent e, int dataBytes) => Waiting.Add((New(subscriber, e.Id, dataBytes), e));

    private NewDelivery New(Subscriber subscriber, Guid eventId, int dataBytes)
    {
        _ofTenants[subscriber.TenantId] = _ofTenants.GetValueOrDefault(subscriber.TenantId) + 1;
        return new NewDelivery(subscriber.TenantId, TypeId.NewGuid(), eventId, subscriber.Id)
        {
            DataBytes = dataBytes,
            Gathers = subscriber.Batch?.Wait,
        };
    }
}
