using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;

namespace Triggers.Delivery.Subscriptions;

/// <summary>Tells tenants what becomes of their subscriptions.</summary>
internal sealed class OperationalEvents(Subscribers subscribers)
{
    private static readonly JsonSerializerOptions s_json = new()
    {
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        // An address is shown as it is.
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    /// <summary>Tells a tenant, where somebody asks for it, in the transaction in which it happens.</summary>
    public async Task TellAsync(
        NpgsqlConnection connection, Guid tenantId, string type, object data, CancellationToken cancellationToken)
    {
        var subscriptions = subscribers.MatchingOperational(tenantId, type).Select(s => (s.Id, s.OrderKeyOf(null))).ToList();
        if (subscriptions.Count == 0)
            return;
        var id = TypeId.NewGuid();
        var e = new Event
        {
            TenantId = tenantId,
            Id = id,
            Type = type,
            CorrelationId = TypeId.Format(TypeId.Event, id),
            Data = JsonSerializer.SerializeToUtf8Bytes(data, s_json),
        };
        await using var batch = new NpgsqlBatch(connection);
        foreach (var command in StoredEvents.Tell(e, subscriptions))
            batch.BatchCommands.Add(command);
        await batch.ExecuteNonQueryAsync(cancellationToken);
    }
}
