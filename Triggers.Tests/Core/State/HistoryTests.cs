using Npgsql;
using Triggers.Core;
using Triggers.Tests.Support;

namespace Triggers.Tests.Core.State;

/// <summary>What the tables themselves refuse, whoever writes.</summary>
public class HistoryTests(PostgresServer postgres) : EngineTests(postgres)
{
    [Theory]
    [InlineData("succeeded")]
    [InlineData("dead_lettered")]
    [InlineData("cancelled")]
    public async Task History_is_never_changed(string status)
    {
        var id = TypeId.NewGuid();
        await Engine.ExecuteAsync(
            $"""
            INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, status, test, finalized_at)
            VALUES ('{Engine.Tenant}', '{id}', '{TypeId.NewGuid()}', '{TypeId.NewGuid()}', '{status}', false, now())
            """);

        foreach (var change in new[] { "status = 'succeeded'", "status = 'cancelled'", "retry_count = 2", "finalized_at = now()" })
        {
            var refused = await Assert.ThrowsAsync<PostgresException>(
                () => Engine.ExecuteAsync($"UPDATE deliveries SET {change} WHERE id = '{id}'"));
            Assert.Equal(PostgresErrorCodes.RestrictViolation, refused.SqlState);
        }
    }

    [Theory]
    [InlineData("'pending', now()", "")]
    [InlineData("'lost', now()", "")]
    [InlineData("'succeeded', NULL", "")]
    [InlineData("'succeeded', now()", ", attempt_id")]
    [InlineData("'succeeded', now()", ", attempt_id, attempt_number")]
    public async Task History_holds_only_what_is_final_and_attempts_that_are_whole(string statusAndEnd, string columns)
    {
        var values = columns.Replace(", attempt_id", ", gen_random_uuid()", StringComparison.Ordinal)
            .Replace(", attempt_number", ", 1", StringComparison.Ordinal);

        var refused = await Assert.ThrowsAsync<PostgresException>(() => Engine.ExecuteAsync(
            $"""
            INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, status, finalized_at{columns})
            VALUES ('{Engine.Tenant}', '{TypeId.NewGuid()}', '{TypeId.NewGuid()}', '{TypeId.NewGuid()}', {statusAndEnd}{values})
            """));
        Assert.Equal(PostgresErrorCodes.CheckViolation, refused.SqlState);
    }

    [Fact]
    public async Task What_waits_has_a_time_at_which_it_is_due()
    {
        var refused = await Assert.ThrowsAsync<PostgresException>(() => Engine.ExecuteAsync(
            $"""
            INSERT INTO delivery_queue (tenant_id, id, event_id, subscription_id, next_attempt_at)
            VALUES ('{Engine.Tenant}', '{TypeId.NewGuid()}', '{TypeId.NewGuid()}', '{TypeId.NewGuid()}', NULL)
            """));
        Assert.Equal(PostgresErrorCodes.NotNullViolation, refused.SqlState);
    }
}
