using Triggers.AppHost;

[assembly: AssemblyFixture(typeof(Triggers.Tests.Support.RedisServer))]

namespace Triggers.Tests.Support;

/// <summary>
/// A real server that speaks Redis: Garnet. Test classes take the one of the run as a constructor parameter; it starts when the first
/// of them asks for its address. Tests that crash it start their own with <see cref="StartOwnAsync"/> and dispose of it.
/// </summary>
public sealed class RedisServer : IAsyncDisposable
{
    private readonly StoreGuard _guard = new(Topology.Redis);

    /// <summary>A server of its own, to be stopped and started by its test.</summary>
    public static async Task<RedisServer> StartOwnAsync()
    {
        var server = new RedisServer();
        await server._guard.StartedAsync();
        return server;
    }

    /// <summary>As in <c>127.0.0.1:6379</c>.</summary>
    public Task<string> ConnectionStringAsync() => _guard.ConnectionStringAsync(Topology.Redis);

    /// <summary>Kills it at once; what it held is lost, and it stays down until <see cref="StartAsync"/>.</summary>
    public Task StopImmediateAsync() => _guard.KillAsync(Topology.Redis);

    /// <summary>Starts it again on the same port.</summary>
    public Task StartAsync() => _guard.StartAsync(Topology.Redis);

    public ValueTask DisposeAsync() => _guard.DisposeAsync();
}
