using Npgsql;
using Triggers.Core;
using Triggers.Delivery.Completion;
using Triggers.EventLog;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Projection;

/// <summary>
/// Takes events from a log to the queue: reads a batch, decides what follows from it, and writes that in the transaction in which the
/// log's position passes the batch. What is read again changes nothing. Each log has one of these, in every process.
/// </summary>
internal sealed class Projector<TSource>(
    TSource source, Projection projection, EngineDataSource dataSource, DeliveryMetrics metrics,
    TimeProvider time, ILogger<Projector<TSource>> logger)
    : BackgroundLoop(time, logger) where TSource : IEventSource
{
    /// <summary>The most events of a transaction.</summary>
    private const int MaxRecords = 500;

    /// <summary>The most of them that are read at once. Whoever falls behind leaves the rest in the log, where it costs nothing.</summary>
    private const int MaxRead = 100;

    /// <summary>The fewest.</summary>
    private const int MinRead = 16;

    /// <summary>While more than these wait for a place in their lanes, nothing more is read.</summary>
    private const int MaxNext = 32;

    /// <summary>
    /// How long a transaction waits for what it has started, and for more: what ends by then costs one insertion, and no place in the
    /// queue.
    /// </summary>
    private static readonly TimeSpan s_gather = TimeSpan.FromMilliseconds(25);

    /// <summary>How long tenants are remembered to have events.</summary>
    private static readonly TimeSpan s_mixed = TimeSpan.FromSeconds(10);

    /// <summary>How often it is looked whether there are places for what found its lane full.</summary>
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(2);

    /// <summary>In so much of the end of that time nothing is read while what has been read waits.</summary>
    private static readonly TimeSpan s_lastOrders = TimeSpan.FromMilliseconds(10);

    /// <summary>
    /// How long it then still waits for attempts that are likely to have ended by then: what is in flight when it is written costs a row
    /// in the queue.
    /// </summary>
    private static readonly TimeSpan s_land = TimeSpan.FromMilliseconds(75);

    /// <summary>What an open transaction does next.</summary>
    private enum Step
    {
        /// <summary>It reads what there is.</summary>
        Read,

        /// <summary>It starts what has a place by now.</summary>
        Start,

        /// <summary>It writes what has come of it all.</summary>
        Write,
    }

    private int _limit = MaxRead;

    /// <summary>How many are read at once, as long as nothing is refused: fewer after a transaction that was too short for them.</summary>
    private int _pace = MaxRead;

    /// <summary>When there were last events of several tenants in a transaction, a timestamp.</summary>
    private long _mixedAt;

    /// <summary>
    /// Whether several tenants have events. Then everything is read at once, also what is better left in the log for its own sake: there
    /// the events of one tenant wait behind those of another.
    /// </summary>
    private bool IsMixed => _mixedAt != 0 && Time.GetElapsedTime(_mixedAt) < s_mixed;

    protected override bool IsAway(Exception e) => e is EventLogUnavailableException || base.IsAway(e);

    protected override Task PrepareAsync(CancellationToken stoppingToken) => projection.Ready.WaitAsync(stoppingToken);

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

    private async Task ProjectAsync(NpgsqlConnection connection, CancellationToken stoppingToken)
    {
        var first = new FirstAttempts();
        try
        {
            await using var transaction = await connection.BeginTransactionAsync(stoppingToken);
            await ProjectAsync(transaction, first, stoppingToken);
        }
        finally
        {
            projection.End(first);
        }
    }

    private async Task ProjectAsync(NpgsqlTransaction transaction, FirstAttempts first, CancellationToken stoppingToken)
    {
        // What was refused just now is not sent before it is written.
        var matches = new Matches(_limit == MaxRead ? first : null);
        EventBatch? last = null;
        var (events, setAside, worked) = (0, 0, TimeSpan.Zero);
        var openedAt = Time.GetTimestamp();
        for (var step = Step.Read; step != Step.Write;)
        {
            var startedAt = Time.GetTimestamp();
            // What has been sent is written also when this process is to end.
            var token = last is null ? stoppingToken : CancellationToken.None;
            if (step == Step.Start)
            {
                projection.StartWaiting(matches);
            }
            else if (await source.ReadAsync(transaction.Connection!, Math.Min(_limit, IsMixed ? MaxRead : _pace), token) is { } batch)
            {
                await projection.MatchAsync(transaction.Connection!, batch, matches, token);
                last = batch;
                events += batch.Events.Count;
                setAside += batch.SetAside;
                if (matches.Tenants > 1)
                    _mixedAt = startedAt;
                DeliveryTraces.Projected(source.Name, batch.Events, Time.GetElapsedTime(startedAt), Time.GetUtcNow());
            }
            worked += Time.GetElapsedTime(startedAt);
            if (last is null || matches is not { First: not null, IsLeftDue: false, Deferred.Count: 0 }
                || stoppingToken.IsCancellationRequested)
                break;
            step = await NextAsync(matches, events < MaxRecords, openedAt, stoppingToken);
        }
        if (last is null)
            return;

        var endedAt = Time.GetTimestamp();
        await projection.CommitAsync(transaction, matches, last.Advance, CancellationToken.None);
        source.Passed();
        _limit = Math.Min(MaxRead, _limit * 2);
        _pace = matches.Next > 0 ? Math.Max(MinRead, _pace / 2) : Math.Min(MaxRead, _pace + MinRead);
        metrics.Projected(source.Name, events, worked + Time.GetElapsedTime(endedAt));
        metrics.SetAside(setAside);
    }

    /// <summary>Waits for more, and for what has been begun, until there is something to do.</summary>
    private async Task<Step> NextAsync(Matches matches, bool mayRead, long openedAt, CancellationToken stoppingToken)
    {
        var left = s_gather - Time.GetElapsedTime(openedAt);
        if (left <= TimeSpan.Zero || !mayRead)
        {
            if (!projection.WillLand(matches, openedAt, left + s_land))
                return Step.Write;
            return mayRead && IsMixed ? await MoreAsync(s_look, stoppingToken) : await LaterAsync(stoppingToken);
        }
        if (!IsMixed && (matches.Next > MaxNext || matches.Next > 0 && left < s_lastOrders))
            return await LaterAsync(stoppingToken);
        return await MoreAsync(matches.Waiting.Count > 0 && left > s_look ? s_look : left, stoppingToken);
    }

    private async Task<Step> LaterAsync(CancellationToken stoppingToken)
    {
        await Task.Delay(s_look, Time, stoppingToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        return Step.Start;
    }

    private async Task<Step> MoreAsync(TimeSpan atMost, CancellationToken stoppingToken)
    {
        try
        {
            return atMost > TimeSpan.Zero && await source.MoreAsync(atMost, stoppingToken) ? Step.Read : Step.Start;
        }
        catch (OperationCanceledException)
        {
            return Step.Start;
        }
    }
}
