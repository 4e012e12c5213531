using Npgsql;
using Triggers.Core;
using Triggers.Delivery.Workers;
using Triggers.EventLog;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Projection;

/// <summary>
/// Takes events from a log to the queue: reads a batch, decides what follows from it, and writes that in the transaction in which the
/// log's position passes the batch. What is read again changes nothing. Each log has one of these, in every process.
/// </summary>
internal sealed class Projector<TSource>(
    TSource source, Projection projection, EngineDataSource dataSource, WorkerRegistration worker, DeliveryMetrics metrics,
    TimeProvider time, ILogger<Projector<TSource>> logger)
    : BackgroundLoop(time, logger) where TSource : IEventSource
{
    private const int MaxRecords = 500;

    private int _limit = MaxRecords;

    protected override bool IsAway(Exception e) => e is EventLogUnavailableException || base.IsAway(e);

    protected override Task PrepareAsync(CancellationToken stoppingToken) => worker.Registered.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        await using var connection = await dataSource.Pool.OpenConnectionAsync(stoppingToken);
        try
        {
            while (true)
            {
                await source.WaitAsync(connection, stoppingToken);
                await ProjectAsync(connection, stoppingToken);
                Recovered();
            }
        }
        catch (PostgresException e) when (Storage.IsRefusal(e))
        {
            // One of the records, or what follows from it, can't be stored. Halving finds it in a few steps, in the order of the log, and
            // all others go on. On a fresh connection, which the next round has.
            dataSource.Refused();
            if (_limit == 1)
                await source.SetAsideAsync(e, stoppingToken);
            _limit = Math.Max(1, _limit / 2);
        }
    }

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        source.Leave();
    }

    private async Task ProjectAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var claimedAt = Time.GetTimestamp();
        if (await source.ReadAsync(connection, _limit, cancellationToken) is not { } batch)
            return;
        var matches = await projection.MatchAsync(connection, batch, claimedAt, cancellationToken);
        await projection.CommitAsync(transaction, matches, batch.Advance, cancellationToken);

        var duration = Time.GetElapsedTime(claimedAt);
        projection.Start(matches);
        source.Passed();
        _limit = Math.Min(MaxRecords, _limit * 2);
        metrics.Projected(source.Name, batch.Events.Count, duration);
        if (batch.SetAside > 0)
            metrics.SetAside(batch.SetAside);
        DeliveryTraces.Projected(source.Name, batch.Events, duration, Time.GetUtcNow());
    }
}
