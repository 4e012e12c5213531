using Triggers.Tests.Support;

namespace Triggers.Tests.Api.RateLimiting;

/// <summary>
/// What one process changes of a key, the others know at once. Keys are kept for minutes here: asking the database explains nothing.
/// </summary>
public sealed class KeyChangesTests(ApiFixture api, RedisServer redis) : IClassFixture<ApiFixture>
{
    private static readonly TimeSpan s_promised = TimeSpan.FromSeconds(1);

    [Fact]
    public async Task A_revoked_key_and_a_changed_plan_are_known_to_the_other_process_within_a_second()
    {
        await using var hosts = await RedisHosts.StartAsync(api, await redis.ConnectionStringAsync(), ("Auth:KeepKeys", "00:05:00"));
        var key = await hosts.First.NewKeyAsync(1_000, 1_000);
        var other = await hosts.First.NewKeyAsync(1_000, 1_000);
        using var admin = hosts.First.Client();
        using var there = hosts.Second.Client(key.Secret);
        using var otherThere = hosts.Second.Client(other.Secret);
        (await there.GetAsync("/events")).Is(200);
        (await otherThere.GetAsync("/events")).Is(200);
        // Until both have begun to listen.
        var burst = 1_000;
        await Wait.UntilAsync("the other process hears", async () =>
        {
            (await admin.PatchAsync($"/usage-plans/{other.PlanId}", $$"""{"burst":{{++burst}}}""")).Is(200);
            return await IsKnownAsync(otherThere, burst);
        });

        (await admin.PatchAsync($"/usage-plans/{key.PlanId}", """{"burst":7}""")).Is(200);
        await Wait.UntilAsync("the plan is known", () => IsKnownAsync(there, 7), s_promised);
        (await admin.PatchAsync(key.Path, """{"burst":9}""")).Is(200);
        await Wait.UntilAsync("the key's own limit is known", () => IsKnownAsync(there, 9), s_promised);
        (await admin.DeleteAsync(key.Path)).Is(204);
        await Wait.UntilAsync("the key is refused", async () => (await there.GetAsync("/events")).Status == 401, s_promised);

        (await otherThere.GetAsync("/events")).Is(200);

        static async Task<bool> IsKnownAsync(ApiClient client, int burst) =>
            (await client.GetAsync("/events")).Headers["RateLimit-Policy"].Contains($"q={burst};", StringComparison.Ordinal);
    }
}
