using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Subscriptions;

/// <summary>Holds a subscription's deliveries by request, and lets them go.</summary>
internal static class CircuitApi
{
    public static Task<Ok<SubscriptionView>> OpenAsync(
        string id, Caller caller, TriggersDbContext db, SecretProtector protector, TimeProvider time,
        CancellationToken cancellationToken) =>
        ChangeAsync(id, CircuitChanges.OpenByRequest, caller, db, protector, time, cancellationToken);

    public static Task<Ok<SubscriptionView>> CloseAsync(
        string id, Caller caller, TriggersDbContext db, SecretProtector protector, TimeProvider time,
        CancellationToken cancellationToken) =>
        ChangeAsync(id, CircuitChanges.CloseByRequest, caller, db, protector, time, cancellationToken);

    private static async Task<Ok<SubscriptionView>> ChangeAsync(
        string id, Func<Guid, Guid, IEnumerable<NpgsqlBatchCommand>> change, Caller caller, TriggersDbContext db,
        SecretProtector protector, TimeProvider time, CancellationToken cancellationToken)
    {
        var key = Ids.Subscription(id);
        if (!await SubscriptionsApi.Living(db, caller).AnyAsync(s => s.Id == key, cancellationToken))
            throw ApiException.NotFound("subscription");
        await using (var transaction = await db.Database.BeginTransactionAsync(cancellationToken))
        {
            await ApplyAsync(db, change(caller.TenantId, key), cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }
        var changed = await SubscriptionsApi.Living(db, caller).FirstOrDefaultAsync(s => s.Id == key, cancellationToken);
        return TypedResults.Ok(SubscriptionView.Of(changed ?? throw ApiException.NotFound("subscription"), caller, protector, time));
    }

    /// <summary>Within the context's transaction.</summary>
    public static async Task ApplyAsync(
        TriggersDbContext db, IEnumerable<NpgsqlBatchCommand> commands, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch((NpgsqlConnection)db.Database.GetDbConnection());
        foreach (var command in commands)
            batch.BatchCommands.Add(command);
        await batch.ExecuteNonQueryAsync(cancellationToken);
    }
}
