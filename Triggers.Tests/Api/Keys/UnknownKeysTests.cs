using System.Net;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.RateLimiting;
using Triggers.Core;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Keys;

public sealed class UnknownKeysTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task An_address_that_sends_too_many_unknown_keys_is_told_so_and_known_keys_go_on()
    {
        var tenant = await api.NewTenantAsync();
        var late = await api.NewKeyAsync(tenant.Id);
        await using var host = new ApiHost(api.ConnectionString, ("Auth:UnknownKeysPerSecond", "1"), ("Auth:KeepKeys", "00:00:00.1"));
        using var known = host.Client();
        await known.WaitUntilReadyAsync();
        (await known.GetAsync("/tenants")).Is(200);

        var statuses = new List<int>();
        for (var i = 0; i < 20; i++)
            statuses.Add((await GetAsync(host, $"unknown-{i}")).Status);

        Assert.InRange(statuses.Count(s => s == 401), 10, 15);
        (await GetAsync(host, "unknown-again")).IsProblem(429, "rate_limited");
        (await GetAsync(host, "unknown-0")).IsProblem(401, "unauthenticated");
        Assert.Equal("1", (await GetAsync(host, late)).IsProblem(429, "rate_limited").Headers["Retry-After"]);
        // However old what is known of it.
        for (var i = 0; i < 3; i++)
        {
            (await known.GetAsync("/tenants")).Is(200);
            await Wait.UntilAsync("the next answer is a new one", async () => (await known.PostAsync($"/tenants", "{")).Status == 400);
        }
        (await GetAsync(host, "unknown-0", "/health")).Is(200);
        await Wait.UntilAsync("a new key is let in", async () => (await GetAsync(host, late)).Status == 200, TimeSpan.FromSeconds(5));
    }

    [Fact]
    public async Task Behind_a_trusted_proxy_the_address_is_the_clients()
    {
        await using var host = new ApiHost(
            api.ConnectionString, ("Auth:UnknownKeysPerSecond", "1"), ("Auth:TrustedProxies", "127.0.0.0/8,::1/128,10.0.0.0/8"));
        using (var client = host.Client())
            await client.WaitUntilReadyAsync();
        for (var i = 0; i < 12; i++)
            await GetAsync(host, $"stranger-{i}", "/events", "203.0.113.7");

        (await GetAsync(host, "stranger", "/events", "203.0.113.7")).IsProblem(429, "rate_limited");
        (await GetAsync(host, "stranger", "/events", "203.0.113.8")).IsProblem(401, "unauthenticated");
        (await GetAsync(host, "stranger-by-v6", "/events", "2001:db8::1")).IsProblem(401, "unauthenticated");
        // Somebody has all addresses of a network.
        for (var i = 0; i < 12; i++)
            await GetAsync(host, $"v6-stranger-{i}", "/events", $"2001:db8::{i}");
        (await GetAsync(host, "v6-stranger", "/events", "2001:db8::ffff")).IsProblem(429, "rate_limited");
        // By way of another trusted one, which says where it comes from; what is before that is only said by the client.
        for (var i = 0; i < 12; i++)
            await GetAsync(host, $"far-stranger-{i}", "/events", $"192.0.2.{i}, 198.51.100.1, 10.0.0.9");
        (await GetAsync(host, "far-stranger", "/events", "198.51.100.1, 10.0.0.9")).IsProblem(429, "rate_limited");
        (await GetAsync(host, "far-stranger", "/events", "198.51.100.2, 10.0.0.9")).IsProblem(401, "unauthenticated");
    }

    [Fact]
    public async Task Without_a_trusted_proxy_nobody_chooses_their_address()
    {
        await using var host = new ApiHost(api.ConnectionString, ("Auth:UnknownKeysPerSecond", "1"));
        using (var client = host.Client())
            await client.WaitUntilReadyAsync();
        for (var i = 0; i < 12; i++)
            await GetAsync(host, $"pretender-{i}", "/events", $"203.0.113.{i}");

        (await GetAsync(host, "pretender", "/events", "203.0.113.99")).IsProblem(429, "rate_limited");
    }

    [Fact]
    public async Task An_address_with_many_connections_may_send_no_more_unknown_keys_than_one_with_few()
    {
        var time = new FakeTimeProvider();
        var keys = NewCache(time);

        // As many as may be, and those that were under way when that was reached.
        var lookedUp = await AskOftenAsync();
        Assert.InRange(lookedUp, 10, 10 + 15);
        for (var second = 0; second < 30; second++)
        {
            time.Advance(TimeSpan.FromSeconds(1));
            lookedUp += await AskOftenAsync();
        }
        Assert.InRange(lookedUp, 30 + 10, 30 + 10 + 15);

        async Task<int> AskOftenAsync()
        {
            var asked = await AtOnceAsync(
                () => Enumerable.Range(0, 60).Select(_ => AskAsync(keys, TestContext.Current.CancellationToken)).ToArray());
            return (await Task.WhenAll(asked)).Count(isLookedUp => isLookedUp);
        }
    }

    [Fact]
    public async Task Who_does_not_wait_for_the_answer_has_asked_all_the_same()
    {
        var keys = NewCache(new FakeTimeProvider());
        using var left = new CancellationTokenSource();
        var asked = await AtOnceAsync(() =>
        {
            // As many as can be under way, and behind them as many as may be: who comes next comes after ten have been looked for.
            var tasks = Enumerable.Range(0, 16 + 10).Select(_ => AskAsync(keys, left.Token)).ToArray();
            left.Cancel();
            return tasks;
        });

        Assert.False(await AskAsync(keys, TestContext.Current.CancellationToken));
        foreach (var task in asked)
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => task);
    }

    [Fact]
    public async Task Any_number_of_good_keys_may_come_from_one_address_at_once()
    {
        var tenant = await api.NewTenantAsync();
        var secrets = Enumerable.Range(0, 60).Select(i => $"good-key-{i}").ToArray();
        foreach (var secret in secrets)
        {
            await api.Rows.ExecuteAsync(
                "INSERT INTO api_keys (id, tenant_id, name, prefix, hash, scopes) VALUES (@id, @tenant, 'good', 'good', @hash, '{}')",
                ("id", TypeId.NewGuid()), ("tenant", tenant.Key), ("hash", KeySecret.Hash(secret)));
        }
        var keys = NewCache(new FakeTimeProvider());
        var asked = await AtOnceAsync(() => secrets.Select(
            secret => keys.FindAsync(secret, IPAddress.Loopback, TestContext.Current.CancellationToken)).ToArray());

        Assert.All(await Task.WhenAll(asked), caller => Assert.Equal(tenant.Key, caller?.TenantId));
    }

    /// <summary>What a process knows of keys, where an address may send one unknown key a second, and ten at once.</summary>
    private KeyCache NewCache(TimeProvider time)
    {
        var options = Options.Create(new AuthOptions { UnknownKeysPerSecond = 1 });
        return new(api.DataSource, options, Options.Create(new RateLimitingOptions()), new StrangerLimits(options, time), time);
    }

    /// <summary>Asks while no key is found, nor found to be none.</summary>
    private async Task<Task<T>[]> AtOnceAsync<T>(Func<Task<T>[]> ask)
    {
        await using var connection = await api.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken);
        await using var command = new NpgsqlCommand("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE", connection, transaction);
        await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        return ask();
    }

    /// <summary>Sends a key that nobody knows; whether it was looked up.</summary>
    private static async Task<bool> AskAsync(KeyCache keys, CancellationToken cancellationToken)
    {
        try
        {
            Assert.Null(await keys.FindAsync(Guid.NewGuid().ToString(), IPAddress.Loopback, cancellationToken));
            return true;
        }
        catch (ApiException e)
        {
            Assert.Equal(ErrorCodes.RateLimited, e.Code);
            return false;
        }
    }

    private static async Task<Answer> GetAsync(ApiHost host, string key, string path = "/events", string? forwardedFor = null)
    {
        using var client = host.Client(key);
        return await client.SendAsync(HttpMethod.Get, path, null, forwardedFor is null ? [] : [("X-Forwarded-For", forwardedFor)]);
    }
}
