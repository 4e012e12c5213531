using Triggers.Tests.Support;

namespace Triggers.Tests.EndToEnd;

/// <summary>Part by part is killed under load. A longer run is a command in docs/operations.md.</summary>
[Collection(nameof(CrashCollection))]
public abstract class CrashTests(bool kafka, SystemFixture fixture)
{
    [Fact]
    public async Task Nothing_accepted_is_lost_whatever_is_killed()
    {
        string[] parts = kafka ? ["delivery", "api", "postgres", "kafka", "redis"] : ["delivery", "api", "postgres", "redis"];
        // Each part once, unless more is asked for.
        var rounds = int.TryParse(Environment.GetEnvironmentVariable("CRASH_ROUNDS"), out var asked) ? asked : parts.Length;
        await using var system = await fixture.LoadAsync();
        system.StartLoad();

        for (var round = 0; round < rounds; round++)
        {
            var part = parts[round % parts.Length];
            await system.AcceptedMoreAsync(50, $"load is accepted before round {round + 1}");
            await system.KillAsync(part);
            await system.StartAsync(part);
            await system.AcceptedMoreAsync(20, $"load is accepted again after {part} was killed in round {round + 1}");
        }
        await system.ReconcileAsync($"crashes on {(kafka ? "kafka" : "postgres")}");
    }

    [Fact]
    public async Task What_a_killed_delivery_service_had_in_flight_goes_out_again_within_five_seconds()
    {
        var hang = true;
        await using var system = await fixture.LoadAsync(
            c => hang ? Task.Delay(Timeout.Infinite, c.RequestAborted) : Task.CompletedTask);
        var ids = new List<string>();
        for (var i = 0; i < 10; i++)
            ids.Add(await system.PublishAsync() ?? throw new InvalidOperationException("An event was refused."));
        await Wait.UntilAsync("all ten are in flight", () => ids.TrueForAll(id => system.Ledger.FirstArrival(id) is not null));

        await system.KillAsync("delivery");
        hang = false;
        await system.StartAsync("delivery");

        await Wait.UntilAsync("all ten came again", () => system.Ledger.Duplicates() == ids.Count, TimeSpan.FromSeconds(5));
    }
}

public sealed class CrashOnPostgresTests(CrashOnPostgresTests.OneOfEach system)
    : CrashTests(kafka: false, system), IClassFixture<CrashOnPostgresTests.OneOfEach>
{
    public sealed class OneOfEach() : SystemFixture(kafka: false);
}

public sealed class CrashOnKafkaTests : CrashTests, IClassFixture<CrashOnKafkaTests.OneOfEach>
{
    public CrashOnKafkaTests(OneOfEach system) : base(kafka: true, system) => KafkaServer.SkipIfMissing();

    public sealed class OneOfEach() : SystemFixture(kafka: true);
}
