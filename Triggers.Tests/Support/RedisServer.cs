[assembly: AssemblyFixture(typeof(Triggers.Tests.Support.RedisServer))]

namespace Triggers.Tests.Support;

/// <summary>
/// A real server that speaks Redis: Garnet, as the AppHost starts it. Test classes take the one of the run as a constructor parameter; it
/// starts when the first of them asks for its address. Tests that crash it start their own with <see cref="StartOwnAsync"/> and dispose of
/// it.
/// </summary>
public sealed class RedisServer : IAsyncDisposable
{
    private RunningSystem? _own;

    /// <summary>A server of its own, to be stopped and started by its test.</summary>
    public static async Task<RedisServer> StartOwnAsync()
    {
        var server = new RedisServer { _own = await RunningSystem.CreateAsync(onDemand: false, "--Resources=redis") };
        await server._own.ReadyAsync("redis");
        return server;
    }

    /// <summary>As in <c>127.0.0.1:6379</c>.</summary>
    public async Task<string> ConnectionStringAsync() =>
        await (_own ?? await SharedStores.StartedAsync("redis")).ConnectionStringAsync("redis");

    /// <summary>Kills it at once; what it held is lost, and it stays down until <see cref="StartAsync"/>.</summary>
    public Task StopImmediateAsync() => _own!.KillAsync("redis");

    /// <summary>Starts it again on the same port.</summary>
    public Task StartAsync() => _own!.StartAsync("redis");

    public ValueTask DisposeAsync() => _own?.DisposeAsync() ?? new(SharedStores.StopAsync());
}
