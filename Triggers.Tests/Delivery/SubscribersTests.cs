using Microsoft.AspNetCore.DataProtection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using Triggers.Core.Transformations;
using Triggers.Delivery.Subscriptions;
using Triggers.ServiceDefaults;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>The copy of all subscriptions that a delivery process keeps, and how little it reads to keep it.</summary>
public sealed class SubscribersTests(PostgresServer postgres) : EngineTests(postgres)
{
    private readonly Subscribers _subscribers =
        new(new SecretProtector(new EphemeralDataProtectionProvider()), Options.Create(new TransformationOptions()), TimeProvider.System,
            NullLogger<Subscribers>.Instance);

    [Fact]
    public async Task A_change_of_one_subscription_reads_that_one_again_and_not_all()
    {
        var ids = new List<Guid>();
        for (var i = 0; i < 40; i++)
            ids.Add(await Engine.SubscribeAsync(Receiver.Url));
        await RefreshAsync();
        Assert.All(ids, id => Assert.NotNull(_subscribers.Find(id)));

        // Other databases of the server count too: the horizon is behind as long as one of their transactions is open.
        await Wait.UntilAsync("no transaction from before is open", async () => await Engine.ScalarAsync<bool>(
            "SELECT pg_snapshot_xmin(pg_current_snapshot()) > max(changed_by) FROM subscriptions"));
        await ChangeAsync(ids[0], "url = 'http://first.example'");
        await RefreshAsync();
        var before = _subscribers.RowsRead;
        await ChangeAsync(ids[1], "url = 'http://second.example'");
        await RefreshAsync();

        Assert.InRange(_subscribers.RowsRead - before, 1, 2);
        Assert.Equal("http://second.example", _subscribers.Find(ids[1])!.Url);
        Assert.Equal("http://first.example", _subscribers.Find(ids[0])!.Url);
    }

    [Fact]
    public async Task Disabled_enabled_and_deleted_ones_match_as_they_are_now()
    {
        var (stays, changes) = (await Engine.SubscribeAsync(Receiver.Url), await Engine.SubscribeAsync(Receiver.Url, "order.*"));
        await RefreshAsync();
        Assert.Equal(new HashSet<Guid> { stays, changes }, Matching("order.created"));
        Assert.Equal(new HashSet<Guid> { stays }, Matching("invoice.paid"));

        await ChangeAsync(changes, "enabled = false, disabled_reason = 'requested'");
        await RefreshAsync();
        Assert.Equal(new HashSet<Guid> { stays }, Matching("order.created"));
        Assert.False(_subscribers.Find(changes)!.Enabled);

        await ChangeAsync(changes, "enabled = true, disabled_reason = NULL, event_types = '{invoice.*}'");
        await RefreshAsync();
        Assert.Equal(new HashSet<Guid> { stays, changes }, Matching("invoice.paid"));

        await ChangeAsync(changes, "deleted_at = now(), enabled = false, disabled_reason = 'requested'");
        await RefreshAsync();
        Assert.Equal(new HashSet<Guid> { stays }, Matching("invoice.paid"));
        Assert.Null(_subscribers.Find(changes));

        await ChangeAsync(stays, "deleted_at = now(), enabled = false, disabled_reason = 'requested'");
        await RefreshAsync();
        Assert.Empty(Matching("invoice.paid"));
    }

    [Fact]
    public async Task One_whose_time_is_over_matches_nothing_whether_or_not_it_has_been_deleted()
    {
        var time = new FakeTimeProvider();
        var subscribers = new Subscribers(
            new SecretProtector(new EphemeralDataProtectionProvider()), Options.Create(new TransformationOptions()), time,
            NullLogger<Subscribers>.Instance);
        var (over, ends) = (await Engine.SubscribeAsync(Receiver.Url), await Engine.SubscribeAsync(Receiver.Url));
        var stays = await Engine.SubscribeAsync(Receiver.Url);
        await ChangeAsync(over, "expires_at = now() - interval '1 second'");
        await ChangeAsync(ends, "expires_at = now() + interval '1 hour'");
        await ChangeAsync(stays, "expires_at = '9999-12-31'");
        await subscribers.RefreshAsync(Engine.DataSource, TestContext.Current.CancellationToken);
        HashSet<Guid> Found() => [.. subscribers.Matching(Engine.Tenant, "order.created").Select(s => s.Id)];
        Assert.Equal(new HashSet<Guid> { ends, stays }, Found());
        Assert.Null(subscribers.Find(over));

        time.Advance(TimeSpan.FromHours(1));

        Assert.Equal(new HashSet<Guid> { stays }, Found());
        Assert.Null(subscribers.Find(ends));
    }

    [Fact]
    public async Task A_change_by_a_transaction_that_began_before_others_and_committed_after_them_is_seen()
    {
        var (early, late) = (await Engine.SubscribeAsync(Receiver.Url), await Engine.SubscribeAsync(Receiver.Url));
        await using var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken);
        await using var change = connection.CreateCommand();
        change.CommandText = "SELECT pg_current_xact_id()";
        await change.ExecuteScalarAsync(TestContext.Current.CancellationToken);

        await ChangeAsync(late, "url = 'http://late.example'");
        await RefreshAsync();
        Assert.Equal("http://late.example", _subscribers.Find(late)!.Url);
        change.CommandText = $"UPDATE subscriptions SET url = 'http://early.example' WHERE id = '{early}'";
        await change.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        await transaction.CommitAsync(TestContext.Current.CancellationToken);
        await RefreshAsync();

        Assert.Equal("http://early.example", _subscribers.Find(early)!.Url);
    }

    private Task RefreshAsync() => _subscribers.RefreshAsync(Engine.DataSource, TestContext.Current.CancellationToken);

    private HashSet<Guid> Matching(string type) => [.. _subscribers.Matching(Engine.Tenant, type).Select(s => s.Id)];

    private Task<int> ChangeAsync(Guid id, string what) => Engine.ExecuteAsync($"UPDATE subscriptions SET {what} WHERE id = '{id}'");
}
