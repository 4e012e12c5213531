using Triggers.Tests.AppHost;

[assembly: AssemblyFixture(typeof(Triggers.Tests.Support.KafkaServer))]

namespace Triggers.Tests.Support;

/// <summary>
/// A real Kafka of one broker, from <c>KAFKA_HOME</c>, as the AppHost starts it. Test classes take the one of the run as a constructor
/// parameter; it starts when the first of them asks for its address. Tests that crash it start their own with <see cref="StartOwnAsync"/>
/// and dispose of it.
/// </summary>
public sealed class KafkaServer : IAsyncDisposable
{
    private RunningSystem? _own;

    /// <summary>The Kafka distribution; null when there is none.</summary>
    public static string? Home { get; } =
        Environment.GetEnvironmentVariable("KAFKA_HOME") is { Length: > 0 } home && Directory.Exists(Path.Combine(home, "bin")) ? home
            : null;

    /// <summary>Why there is no Kafka; null when there is one.</summary>
    public static string? MissingReason => Home is null ? "KAFKA_HOME does not name a Kafka distribution" : null;

    /// <summary>Ends the calling test as skipped.</summary>
    public static void SkipIfMissing() => Assert.SkipWhen(MissingReason is not null, MissingReason ?? "");

    /// <summary>A server of its own, to be stopped and started by its test.</summary>
    public static async Task<KafkaServer> StartOwnAsync()
    {
        var server = new KafkaServer { _own = await RunningSystem.CreateAsync(onDemand: false, "--Resources=kafka") };
        await server._own.ReadyAsync("kafka");
        return server;
    }

    /// <summary>As in <c>127.0.0.1:9092</c>.</summary>
    public async Task<string> ConnectionStringAsync() =>
        await (_own ?? await SharedStores.StartedAsync("kafka")).ConnectionStringAsync("kafka");

    /// <summary>It answers nothing, and closes no connection, until <see cref="GoOnAsync"/>.</summary>
    public Task HangAsync() => RunningAppHost.SignalAsync("STOP", _own!.ProcessOf("kafka"));

    public Task GoOnAsync() => RunningAppHost.SignalAsync("CONT", _own!.ProcessOf("kafka"));

    /// <summary>Kills it at once; it stays down until <see cref="StartAsync"/>.</summary>
    public Task StopImmediateAsync() => _own!.KillAsync("kafka");

    /// <summary>Starts it again on the same data and port, and waits until it takes records.</summary>
    public Task StartAsync() => _own!.StartAsync("kafka");

    public ValueTask DisposeAsync() => _own?.DisposeAsync() ?? new(SharedStores.StopAsync());
}
