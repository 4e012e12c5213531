using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Delivery.Subscriptions;
using Triggers.Delivery.Waking;
using Triggers.Delivery.Workers;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Projection;

/// <summary>
/// Makes the deliveries of events that many subscribe to, a portion at a time and beside the log, so that what comes after such an event
/// does not wait behind it. Any number of processes may do it at once.
/// </summary>
internal sealed class FanOutLoop(
    EngineDataSource dataSource, Projection projection, Subscribers subscribers, WorkerRegistration worker, Wakeups wakeups,
    TimeProvider time, ILogger<FanOutLoop> logger)
    : BackgroundLoop(time, logger)
{
    private const int MaxOfTenant = 4;
    private const int MaxTaken = 200;

    private static readonly TimeSpan LookInterval = TimeSpan.FromSeconds(5);

    // The tenant that was taken last: the next portion begins behind it, so that nobody comes twice before everybody was there.
    private Guid _last;

    protected override Task PrepareAsync(CancellationToken stoppingToken) => worker.Registered.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        await using var connection = await dataSource.Pool.OpenConnectionAsync(stoppingToken);
        while (true)
        {
            while (await FanOutAsync(connection, stoppingToken))
            {
            }
            Recovered();
            await wakeups.FanOuts.WaitAsync(LookInterval, stoppingToken);
        }
    }

    /// <summary>Makes a portion of the deliveries that were deferred.</summary>
    /// <returns>Whether there may be more.</returns>
    private async Task<bool> FanOutAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var behind = _last;
        var (taken, version) = await TakeAsync(connection, behind, cancellationToken);
        _last = taken.Count == MaxTaken ? taken[^1].Event.TenantId : Guid.Empty;
        if (taken.Count == 0)
            return behind != Guid.Empty;
        await subscribers.RefreshAsync(connection, version, cancellationToken);
        var matches = new Matches();
        var advanced = new List<(FanOut Event, Guid? After)>();
        var tenants = taken.Select(t => t.Event.TenantId).Distinct().Count();
        var (tenant, most) = (Guid.Empty, 0);
        foreach (var (e, type) in taken)
        {
            if (e.TenantId != tenant)
            {
                // An equal share of what is left: who needs less leaves more to those that come after it.
                (tenant, most) = (e.TenantId, matches.Count + (Matches.MaxDeliveries - matches.Count) / tenants);
                tenants--;
            }
            // It has had that, or its filters their steps: its other events wait for the next portion.
            if (matches.Count >= most || matches.FilterSteps.GetValueOrDefault(e.TenantId) < 0)
                continue;
            var waiting = type is null ? [] : subscribers.Matching(e.TenantId, type)
                .Where(s => s.Id.CompareTo(e.After) > 0 && !e.Made.Contains(s.Id))
                .OrderBy(s => s.Id).ToList();
            var made = matches.Count;
            var after = await AddAsync(connection, e, waiting, matches, most, cancellationToken);
            advanced.Add((e, after));
            // Whoever subscribed to it has gone meanwhile, or does not want it.
            if (type is not null && after is null && made == matches.Count && e.Made.Count == 0
                && (e.After == Guid.Empty || !await HasDeliveriesAsync(connection, e, cancellationToken)))
                matches.Unmatched.Add(new UnclaimedEvent(e.TenantId, e.EventId, e.DeliverAt, e.ExpiresAt));
        }
        await projection.CommitAsync(transaction, matches, [FanOuts.Advance(advanced)], cancellationToken);
        return true;
    }

    /// <summary>Makes deliveries of an event, as far as there is room for them, and the tenant's filters have steps left.</summary>
    /// <returns>The subscription after which it goes on; null where it is done.</returns>
    private static async Task<Guid?> AddAsync(
        NpgsqlConnection connection, FanOut e, List<Subscriber> waiting, Matches matches, int most, CancellationToken cancellationToken)
    {
        var stored = waiting.Exists(subscriber => subscriber.Filter is not null)
            ? await StoredEvents.ReadAsync(connection, e.TenantId, e.EventId, cancellationToken) : null;
        using var json = stored is null ? null
            : await Projection.ReadDataAsync(connection, e.TenantId, stored, e.DataBytes, waiting, cancellationToken);
        var steps = matches.FilterSteps.GetValueOrDefault(e.TenantId, Matches.MaxFilterSteps) - Projection.StepsOf(json, e.DataBytes);
        var (done, after) = (0, e.After);
        foreach (var subscriber in waiting)
        {
            var wants = stored is null || subscriber.Filter is not { } filter
                || filter.Matches(stored.Subject, stored.Source, json?.RootElement ?? default, ref steps);
            if (steps < 0 || matches.Count >= most)
                break;
            // Left to the claims, which take tenants in turn. In no order: whoever wants one since then has it of what came since then.
            if (wants)
                matches.Add(subscriber, e.EventId, e.DataBytes, e.DeliverAt, e.ExpiresAt);
            (done, after) = (done + 1, subscriber.Id);
        }
        matches.FilterSteps[e.TenantId] = steps;
        return done < waiting.Count ? after : null;
    }

    /// <summary>Whether somebody wanted it in a portion before.</summary>
    private static async Task<bool> HasDeliveriesAsync(NpgsqlConnection connection, FanOut e, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            """
            SELECT EXISTS (
                SELECT FROM all_deliveries d WHERE d.tenant_id = @tenant AND d.event_id = @event AND d.id >= @floor)
            """, connection);
        command.Parameters.AddWithValue("tenant", e.TenantId);
        command.Parameters.AddWithValue("event", e.EventId);
        command.Parameters.AddWithValue("floor", EventState.FirstDelivery(e.EventId));
        return (bool)(await command.ExecuteScalarAsync(cancellationToken))!;
    }

    private static async Task<(List<(FanOut Event, string? Type)> Taken, long Version)> TakeAsync(
        NpgsqlConnection connection, Guid behind, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands = { FanOuts.Take(behind, MaxOfTenant, MaxTaken), new("SELECT version FROM subscriptions_version") },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        var taken = new List<(FanOut, string?)>();
        while (await reader.ReadAsync(cancellationToken))
        {
            taken.Add((new FanOut(reader.GetGuid(0), reader.GetGuid(1), reader.GetInt32(2), reader.GetGuid(3))
            {
                Made = reader.IsDBNull(5) ? [] : reader.GetFieldValue<Guid[]>(5),
                DeliverAt = reader.IsDBNull(6) ? null : reader.GetFieldValue<DateTimeOffset>(6),
                ExpiresAt = reader.IsDBNull(7) ? null : reader.GetFieldValue<DateTimeOffset>(7),
            },
                reader.IsDBNull(4) ? null : reader.GetString(4)));
        }
        await reader.NextResultAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        return (taken, reader.GetInt64(0));
    }
}
