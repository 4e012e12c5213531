using Npgsql;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery;

/// <summary>
/// The pool of the hot path. Its statements go by primary key and by the due index, a few rows at a time, on tables whose size changes
/// by orders of magnitude within minutes: plans made from yesterday's statistics would scan them, so only index plans are offered.
/// </summary>
internal sealed class EngineDataSource(NpgsqlDataSource pool, NpgsqlDataSource unpooled)
{
    private const string Name = "engine";
    private const string Unpooled = "engine-unpooled";
    internal const string IndexPlansOnly =
        "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c enable_sort=off -c jit=off "
            + "-c plan_cache_mode=force_generic_plan";

    /// <summary>The pool.</summary>
    public NpgsqlDataSource Pool { get; } = pool;

    /// <summary>A connection of its own, for what would stay with it: session locks, and LISTEN. They end with it.</summary>
    public ValueTask<NpgsqlConnection> OpenUnpooledAsync(CancellationToken cancellationToken) =>
        unpooled.OpenConnectionAsync(cancellationToken);

    /// <summary>
    /// To be called when Postgres refused a statement for its data. Npgsql, when that happens to the very execution in which it prepares
    /// the statement, is left without the description of its rows, and reads its next answer wrongly: the connection must go.
    /// </summary>
    public void Refused() => Pool.Clear();

    /// <summary>Adds the pool, beside the service's own and to the same database.</summary>
    public static void AddTo(WebApplicationBuilder builder)
    {
        static void Configure(NpgsqlConnectionStringBuilder settings)
        {
            // No connection of the pool has state worth clearing.
            settings.NoResetOnClose = true;
            settings.Options = string.IsNullOrEmpty(settings.Options) ? IndexPlansOnly : $"{settings.Options} {IndexPlansOnly}";
        }

        builder.AddPool(key: Name, configure: Configure);
        builder.AddPool(key: Unpooled, configure: settings =>
        {
            Configure(settings);
            settings.Pooling = false;
        });
        builder.Services.AddSingleton(provider => new EngineDataSource(
            provider.GetRequiredKeyedService<NpgsqlDataSource>(Name), provider.GetRequiredKeyedService<NpgsqlDataSource>(Unpooled)));
    }
}
