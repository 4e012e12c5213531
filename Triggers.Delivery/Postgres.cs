using System.Net.Sockets;
using Npgsql;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery;

/// <summary>What the engine's loops need to know of Postgres.</summary>
internal static class Postgres
{
    /// <summary>Whether the failure is one to wait out and try again. Everything else is a mistake of ours and ends the process.</summary>
    public static bool IsAway(Exception e) => e is NpgsqlException or TimeoutException or SocketException or OperationCanceledException or IOException;
}

/// <summary>
/// The pool of the hot path. Its statements go by primary key and by the due index, a few rows at a time, on tables whose size changes
/// by orders of magnitude within minutes: plans made from yesterday's statistics would scan them, so only index plans are offered.
/// </summary>
internal sealed class EngineDataSource(NpgsqlDataSource pool)
{
    private const string Name = "engine";
    private const string IndexPlansOnly = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off -c plan_cache_mode=force_generic_plan";

    /// <summary>The pool.</summary>
    public NpgsqlDataSource Pool { get; } = pool;

    /// <summary>
    /// To be called when Postgres refused a statement for its data. Npgsql, when that happens to the very execution in which it prepares
    /// the statement, is left without the description of its rows, and reads its next answer wrongly: the connection must go.
    /// </summary>
    public void Refused() => Pool.Clear();

    /// <summary>Adds the pool, beside the service's own and to the same database.</summary>
    public static void AddTo(WebApplicationBuilder builder)
    {
        builder.AddPool(key: Name, configure: settings =>
        {
            // Only the worker's own connection has state worth clearing, and it goes with the process: no statement is spent on it.
            settings.NoResetOnClose = true;
            settings.Options = string.IsNullOrEmpty(settings.Options) ? IndexPlansOnly : $"{settings.Options} {IndexPlansOnly}";
        });
        builder.Services.AddSingleton(provider => new EngineDataSource(provider.GetRequiredKeyedService<NpgsqlDataSource>(Name)));
    }
}
