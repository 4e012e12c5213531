using System.Text.Json;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;

namespace Triggers.Tests.Support;

/// <summary>
/// Writes what the delivery service would write, by the same statements, so that tests of the API need not wait for it to come about.
/// </summary>
internal sealed class Rows(NpgsqlDataSource dataSource)
{
    /// <summary>
    /// The projection has seen everything, and nobody subscribed; unless somebody did, whose deliveries are still to be added.
    /// </summary>
    public async Task ProjectAsync(bool matched = false)
    {
        var seen = new List<UnclaimedEvent>();
        var next = 0L;
        await using (var command = Command($"SELECT tenant_id, id, seq FROM events WHERE seq >= {EventState.Position} ORDER BY seq", []))
        await using (var reader = await command.ExecuteReaderAsync(TestContext.Current.CancellationToken))
        {
            while (await reader.ReadAsync(TestContext.Current.CancellationToken))
            {
                seen.Add(new UnclaimedEvent(reader.GetGuid(0), reader.GetGuid(1)));
                next = reader.GetInt64(2) + 1;
            }
        }
        await ExecuteAsync(
            EventState.Receive(matched ? [] : seen),
            new("UPDATE log_positions SET next = greatest(next, @next) WHERE log = 'postgres' AND partition = 0")
            {
                Parameters = { new(
                "next", next) }
            });
    }

    /// <summary>A pending delivery of an event that the projection has seen.</summary>
    public async Task<string> AddDeliveryAsync(TestTenant tenant, string eventId, string subscriptionId)
    {
        var id = TypeId.NewGuid();
        await ExecuteAsync(DeliveryQueue.Enqueue([new NewDelivery(tenant.Key, id, Uuid(eventId), Uuid(subscriptionId))]));
        return TypeId.Format(TypeId.Delivery, id);
    }

    /// <summary>The delivery succeeded, at its first attempt.</summary>
    public Task SucceedAsync(string deliveryId, string contentType = "text/plain", byte[]? body = null) =>
        EndAsync(deliveryId, DeliveryStatus.Succeeded, Attempt(AttemptOutcome.Delivered, 200, contentType, body ?? "thanks"u8.ToArray()));

    /// <summary>The delivery failed for good, at its first attempt.</summary>
    public Task DieAsync(string deliveryId) =>
        EndAsync(deliveryId, DeliveryStatus.DeadLettered, Attempt(AttemptOutcome.HttpStatus, 503), reason: "exhausted");

    /// <summary>Everything that a tenant has pending waits so long.</summary>
    public async Task PutOffAsync(Guid tenant, TimeSpan delay)
    {
        var results = new List<DeliveryResult>();
        await using (var command = Command(
            "SELECT id, event_id, subscription_id, claim FROM delivery_queue WHERE tenant_id = @tenant ORDER BY id", [("tenant", tenant)]))
        await using (var reader = await command.ExecuteReaderAsync(TestContext.Current.CancellationToken))
        {
            while (await reader.ReadAsync(TestContext.Current.CancellationToken))
            {
                results.Add(new DeliveryResult(
                    tenant, reader.GetGuid(0), reader.GetGuid(1), reader.GetGuid(2), reader.GetInt32(3), DeliveryStatus.Pending, null)
                {
                    Delay = delay,
                });
            }
        }
        await ExecuteAsync(DeliveryResults.Apply(results));
    }

    /// <summary>A worker has what is due of a subscription.</summary>
    public Task ClaimAsync(Guid subscription, int worker, TimeSpan lease) => ExecuteAsync(
        DeliveryQueue.Claim(tests: false, [subscription], [100], [long.MaxValue], [true], [default], worker, lease));

    /// <summary>The delivery was cancelled without an attempt.</summary>
    public Task CancelAsync(string deliveryId) => EndAsync(deliveryId, DeliveryStatus.Cancelled, null);

    public async Task<T> ScalarAsync<T>(string sql, params (string Name, object Value)[] parameters)
    {
        await using var command = Command(sql, parameters);
        return (T)(await command.ExecuteScalarAsync(TestContext.Current.CancellationToken))!;
    }

    public async Task ExecuteAsync(string sql, params (string Name, object Value)[] parameters)
    {
        await using var command = Command(sql, parameters);
        await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
    }

    /// <summary>The statements as one transaction.</summary>
    public async Task ExecuteAsync(params IEnumerable<NpgsqlBatchCommand> commands)
    {
        await using var connection = await dataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var batch = new NpgsqlBatch(connection);
        foreach (var command in commands)
            batch.BatchCommands.Add(command);
        await batch.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
    }

    /// <summary>The uuid of an id, whatever its prefix.</summary>
    public static Guid Uuid(string id) => TypeId.TryParse(id[..3], id, out var uuid) ? uuid : throw new FormatException(id);

    private async Task EndAsync(string deliveryId, DeliveryStatus status, AttemptMade? attempt, string? reason = null)
    {
        var id = Uuid(deliveryId);
        (Guid Tenant, Guid Event, Guid Subscription, int Claim, bool IsReplay) queued;
        await using (var command = Command(
            "SELECT tenant_id, event_id, subscription_id, claim, is_replay FROM delivery_queue WHERE id = @id", [("id", id)]))
        await using (var reader = await command.ExecuteReaderAsync(TestContext.Current.CancellationToken))
        {
            Assert.True(await reader.ReadAsync(TestContext.Current.CancellationToken));
            queued = (reader.GetGuid(0), reader.GetGuid(1), reader.GetGuid(2), reader.GetInt32(3), reader.GetBoolean(4));
        }
        await ExecuteAsync(DeliveryResults.Apply(
        [
            new DeliveryResult(queued.Tenant, id, queued.Event, queued.Subscription, queued.Claim, status, attempt)
            {
                CountsAsFailure = attempt is { Outcome: not AttemptOutcome.Delivered },
                Reason = reason,
                IsReplay = queued.IsReplay,
            },
        ]));
    }

    /// <summary>An attempt that took a moment.</summary>
    public static AttemptMade Attempt(AttemptOutcome outcome, int statusCode, string contentType = "text/plain", byte[]? body = null) =>
        new(
        TypeId.NewGuid(), 1, TimeSpan.FromMilliseconds(15), TimeSpan.FromMilliseconds(12), outcome, null, statusCode,
        JsonSerializer.Serialize(new Dictionary<string, string> { ["content-type"] = contentType }), body ?? []);

    private NpgsqlCommand Command(string sql, (string Name, object Value)[] parameters)
    {
        var command = dataSource.CreateCommand(sql);
        foreach (var (name, value) in parameters)
            command.Parameters.AddWithValue(name, value);
        return command;
    }
}
