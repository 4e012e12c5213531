using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Ingest;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Retries;
using Triggers.Core.State;
using Triggers.Core.Tables;

namespace Triggers.Api.Subscriptions;

/// <summary>Whether a key's deliveries go on.</summary>
internal enum KeyState
{
    /// <summary>They do.</summary>
    Flowing,

    /// <summary>The first of them has failed, and is tried again.</summary>
    Failing,

    /// <summary>Nothing of it is sent until somebody lets it go.</summary>
    Held,
}

/// <summary>The delivery that comes next of a key.</summary>
/// <param name="DeliveryId">The delivery.</param>
/// <param name="EventId">What it delivers.</param>
/// <param name="InFlight">Whether it is being sent.</param>
/// <param name="FailedAttempts">How often it failed so far.</param>
/// <param name="NextAttemptAt">When it is sent next; null while it is being sent, or held.</param>
/// <param name="LastOutcome">How its last attempt ended.</param>
/// <param name="LastStatusCode">The HTTP status of that, when there was an answer.</param>
internal sealed record HeadView(
    string DeliveryId, string EventId, bool InFlight, int FailedAttempts, DateTimeOffset? NextAttemptAt, AttemptOutcome? LastOutcome,
    int? LastStatusCode);

/// <summary>Where a key stands.</summary>
/// <param name="Key">The subject; empty where all deliveries of the subscription are in one order.</param>
/// <param name="State">Whether its deliveries go on.</param>
/// <param name="Reason">Of a held key: why the delivery failed for good, as dead letters have it.</param>
/// <param name="Since">Since when it is held, or fails.</param>
/// <param name="FailedDeliveryId">Of a held key: what failed for good. It heads the key still, or is a dead letter.</param>
/// <param name="Head">What comes next; null where nothing waits.</param>
/// <param name="Behind">How many wait behind that; counting stops at 1,000.</param>
internal sealed record KeyView(
    string Key, KeyState State, string? Reason, DateTimeOffset? Since, string? FailedDeliveryId, HeadView? Head, int Behind);

/// <summary>Where the keys of a subscription stand.</summary>
/// <param name="Keys">In the order of their names.</param>
/// <param name="More">Whether there are more after the last of them.</param>
internal sealed record OrderingView(IReadOnlyList<KeyView> Keys, bool More);

/// <summary>Which keys to let go; all that are held when it is left out.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record ReleaseKeys
{
    /// <summary>One key. What is not held is none of those that were let go.</summary>
    [Length(0, EventParser.MaxTextLength), NotRemovable]
    public string? Key { get; init; }

    public static ReleaseKeys Read(Fields fields) => new() { Key = fields.Text("key") };
}

/// <summary>How many keys were let go, and whether more are held.</summary>
internal sealed record ReleasedKeys(int Released, bool Remaining);

/// <summary>What is to be given up.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record SkipHead
{
    /// <summary>The delivery that heads its key.</summary>
    [Id(TypeId.Delivery)]
    public required Guid DeliveryId { get; init; }

    public static SkipHead Read(Fields fields) => new() { DeliveryId = fields.Id("deliveryId") ?? default };
}

/// <summary>What waits in order, and the ways on where it does not go on by itself.</summary>
internal static class OrderingApi
{
    private const int ReleasedAtOnce = 500;

    public static readonly Parameter State = Parameter.OneOf("state", "Only those that stand so.", "held", ["held", "failing"]);

    public static readonly Parameter After = Parameter.Text(
        "after", "Those after this key: the last one of the answer before.", "customer-7", EventParser.MaxTextLength);

    public static readonly Parameter Limit = Parameter.Number("limit", "The most keys.", 1, 200, ifLeftOut: 50);

    /// <summary><c>GET /subscriptions/{id}/ordering</c></summary>
    public static async Task<Ok<OrderingView>> GetAsync(
        string id, HttpContext context, Caller caller, TriggersDbContext db, NpgsqlDataSource dataSource,
        CancellationToken cancellationToken)
    {
        var query = ListRequest.Of(context);
        var which = query.OneOf<KeyStates>(State.Name) ?? KeyStates.All;
        var after = query.Text(After.Name);
        query.EnsureValid();
        var subscription = await FindAsync(id, caller, db, cancellationToken);
        var keys = new List<KeyView>();
        await using var batch = dataSource.CreateBatch();
        batch.BatchCommands.Add(OrderedQueue.Keys(subscription, which, after, query.Limit + 1));
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
            keys.Add(ReadKey(reader));
        return TypedResults.Ok(new OrderingView([.. keys.Take(query.Limit)], keys.Count > query.Limit));
    }

    /// <summary><c>POST /subscriptions/{id}/ordering/release</c></summary>
    public static async Task<Ok<ReleasedKeys>> ReleaseAsync(
        string id, HttpContext context, Caller caller, TriggersDbContext db, NpgsqlDataSource dataSource,
        CancellationToken cancellationToken)
    {
        var subscription = await FindAsync(id, caller, db, cancellationToken);
        var body = await Body.ReadOptionalAsync(context, ReleaseKeys.Read);
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var released = new List<string>();
        await using (var batch = new NpgsqlBatch(connection)
        {
            BatchCommands = { OrderedQueue.Lock([subscription]), OrderedQueue.Release(subscription, body?.Key, ReleasedAtOnce) },
        })
        await using (var reader = await batch.ExecuteReaderAsync(cancellationToken))
        {
            await reader.NextResultAsync(cancellationToken);
            while (await reader.ReadAsync(cancellationToken))
                released.Add(reader.GetString(0));
        }
        await ApplyAsync(connection, [OrderedQueue.Advance(released.Select(key => (subscription, key)))], cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return TypedResults.Ok(new ReleasedKeys(released.Count, released.Count == ReleasedAtOnce));
    }

    /// <summary><c>POST /subscriptions/{id}/ordering/skip</c></summary>
    public static async Task<NoContent> SkipAsync(
        string id, HttpContext context, Caller caller, TriggersDbContext db, NpgsqlDataSource dataSource,
        CancellationToken cancellationToken)
    {
        var subscription = await FindAsync(id, caller, db, cancellationToken);
        var deliveryId = (await Body.ReadAsync(context, SkipHead.Read)).DeliveryId;
        var delivery = await db.Deliveries.FirstOrDefaultAsync(
            d => d.TenantId == caller.TenantId && d.Id == deliveryId && d.SubscriptionId == subscription, cancellationToken)
            ?? throw ApiException.NotFound("delivery");
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        (Guid Id, Guid EventId, int Claim, bool IsReplay, string Key, bool InFlight)? head = null;
        await using (var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                EventState.Lock([delivery.EventId]), OrderedQueue.Lock([subscription]),
                OrderedQueue.Head(caller.TenantId, subscription, deliveryId),
            },
        })
        await using (var reader = await batch.ExecuteReaderAsync(cancellationToken))
        {
            await reader.NextResultAsync(cancellationToken);
            await reader.NextResultAsync(cancellationToken);
            if (await reader.ReadAsync(cancellationToken))
            {
                head = (reader.GetGuid(0), reader.GetGuid(1), reader.GetInt32(2), reader.GetBoolean(3), reader.GetString(4),
                    reader.GetBoolean(5));
            }
        }
        if (head is not { } first)
            throw new ApiException(ErrorCodes.DeliveryEnded, "It has ended, or is in no order.");
        if (first.Id != deliveryId || first.InFlight)
            throw new ApiException(
                ErrorCodes.WaitsInOrder, first.InFlight ? "A delivery of its key is being sent." : "It is not the first of its key.");
        await ApplyAsync(connection,
        [
            OrderedQueue.Unhold(subscription, first.Key, first.Id),
            .. DeliveryResults.Apply(
            [
                new DeliveryResult(
                    caller.TenantId, first.Id, first.EventId, subscription, first.Claim, DeliveryStatus.DeadLettered, null)
                {
                    Reason = DeadLetterReasons.Skipped,
                    IsReplay = first.IsReplay,
                    OrderKey = first.Key,
                },
            ]),
        ], cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return TypedResults.NoContent();
    }

    private static async Task<Guid> FindAsync(string id, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var key = Ids.Subscription(id);
        return await SubscriptionsApi.Living(db, caller).AnyAsync(s => s.Id == key, cancellationToken) ? key
            : throw ApiException.NotFound("subscription");
    }

    /// <summary>Within the connection's transaction; what became due is told to those who deliver.</summary>
    private static async Task ApplyAsync(
        NpgsqlConnection connection, IEnumerable<NpgsqlBatchCommand> commands, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection);
        foreach (var command in commands)
            batch.BatchCommands.Add(command);
        batch.BatchCommands.Add(new NpgsqlBatchCommand($"SELECT pg_notify('{Notifications.Deliveries}', '')"));
        await batch.ExecuteNonQueryAsync(cancellationToken);
    }

    private static KeyView ReadKey(NpgsqlDataReader reader)
    {
        var isHeld = !reader.IsDBNull(1);
        var head = reader.IsDBNull(4) ? null : new HeadView(
            TypeId.Format(TypeId.Delivery, reader.GetGuid(4)), TypeId.Format(TypeId.Event, reader.GetGuid(5)), reader.GetBoolean(7),
            reader.GetInt32(6), Moment(8), reader.IsDBNull(9) ? null : SnakeCase<AttemptOutcome>.Parse(reader.GetString(9)),
            reader.IsDBNull(10) ? null : reader.GetInt32(10));
        return new KeyView(
            reader.GetString(0), isHeld ? KeyState.Held : head?.FailedAttempts > 0 ? KeyState.Failing : KeyState.Flowing,
            isHeld ? reader.GetString(1) : null, Moment(2) ?? Moment(11),
            isHeld ? TypeId.Format(TypeId.Delivery, reader.GetGuid(3)) : null, head, Math.Max(0, reader.GetInt32(12) - 1));

        DateTimeOffset? Moment(int column) => reader.IsDBNull(column) ? null : reader.GetFieldValue<DateTimeOffset>(column);
    }
}
