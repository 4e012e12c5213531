using System.Diagnostics;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;

namespace Triggers.Bench;

/// <summary>What is measured of one system, each by its name, in the order in which one disturbs the next least.</summary>
internal sealed class Measurements(string log, string? kafkaHome, Options options, Results results)
{
    private static readonly TimeSpan s_settling = TimeSpan.FromMinutes(5);
    private static readonly string[] s_services = ["api", "delivery"];

    private readonly bool _quick = options.Has("--quick");
    private readonly bool _long = options.Has("--long");
    private bool _profiles;
    private SystemUnderTest _system = null!;
    private NpgsqlDataSource _database = null!;
    private HttpClient _client = null!;
    private double? _transactionsPerSecond;
    private double? _copiedPerSecond;
    private double? _sustained;
    private int _accepted;
    private int _lost;
    private int _duplicates;
    private int _refused;

    /// <returns>How many events were lost.</returns>
    public async Task<int> RunAsync()
    {
        if (IsAsked("ceilings"))
            await HttpCeilingsAsync();
        // The load generator's own code is compiled before anybody waits for it.
        else
            await Ceilings.HttpAsync("/accept", Seconds(2, 2));
        await using (_system = await SystemUnderTest.StartAsync(kafkaHome))
        await using (_database = NpgsqlDataSource.Create(_system.ConnectionString))
        using (_client = Publisher.Client(_system.Api, _system.AdminKey))
        {
            if (IsAsked("cold"))
                await ColdAsync();
            // It takes a start of Postgres, after which a cold start is none.
            if (_profiles = options.Has("--profile"))
            {
                await _system.CountStatementsAsync();
                await Until.TrueAsync(IsReadyAsync, s_settling);
            }
            await WarmUpAsync();
            (string Name, Func<Task> Measure)[] others =
            [
                ("ceilings", StorageCeilingsAsync), ("flat", FlatOutAsync), ("at-300", () => AtRateAsync(300)),
                ("at-1000", () => AtRateAsync(1_000)), ("idle", IdleAsync), ("batch", BatchAsync), ("schema", SchemaAsync),
                ("held", HeldAsync),
                ("memory", MemoryAsync), ("filled", FilledAsync), ("drain", DrainAsync), ("drain-held", DrainBesideHeldAsync),
            ];
            foreach (var (name, measure) in others.Where(other => IsAsked(other.Name)))
                await measure();
        }
        results.Add(log, "reconciled by id",
            $"{_accepted:n0} accepted, {_lost} lost, {_duplicates} duplicates; {_refused} refused", "0 lost");
        return _lost;
    }

    private async Task<bool> IsReadyAsync()
    {
        using var answer = await _client.GetAsync("/health/ready");
        return answer.IsSuccessStatusCode;
    }

    private async Task HttpCeilingsAsync()
    {
        // The first round is the compiler's.
        await Ceilings.HttpAsync("/accept", Seconds(2, 1));
        results.Add(log, "ceiling: bare Kestrel answering 202", $"{await Ceilings.HttpAsync("/accept", Seconds(4, 2)):n0}/s");
        results.Add(log, "ceiling: bare HttpClient to the same receiver", $"{await Ceilings.HttpAsync("/hook", Seconds(4, 2)):n0}/s");
    }

    private async Task StorageCeilingsAsync()
    {
        var (rate, by) = await Ceilings.SimpleUpdatesAsync(_system, Seconds(10, 5));
        _transactionsPerSecond = rate;
        results.Add(log, $"ceiling: {by}", $"{rate:n0}/s");
        _copiedPerSecond = await Ceilings.CopyAsync(_system.ConnectionString, _quick ? 30_000 : 200_000);
        results.Add(log, "ceiling: binary COPY of events, one connection", $"{_copiedPerSecond:n0} rows/s");
    }

    private async Task ColdAsync()
    {
        var phase = await MeasureAsync(publisher => publisher.AtRateAsync(900, Seconds(10, 3)));
        var webhooks = Percentiles.Of(phase.Ledger.AcceptToWebhook());
        results.Add(log, "900/s from a cold start: worst wait of a caller",
            $"{Percentiles.Of(phase.Load.Latencies).Max / 1000:0.00} s, {phase.Load.RefusedText} refused", "< 1 s");
        results.Add(log, "900/s from a cold start: slowest webhook", $"{webhooks.Max / 1000:0.00} s");
    }

    private async Task WarmUpAsync()
    {
        await MeasureAsync(publisher => publisher.AtRateAsync(500, Seconds(5, 2)));
        await MeasureAsync(publisher => publisher.FlatOutAsync(Seconds(8, 3)));
    }

    private async Task FlatOutAsync()
    {
        _system.ForgetPeaks();
        var phase = await MeasureAsync(publisher => publisher.FlatOutAsync(Seconds(60, 10)));
        _sustained = phase.Rate;
        results.Add(log, "flat out: accepted, delivered, recorded",
            $"{phase.Rate:n0}/s{RatioTo(phase.Rate, _transactionsPerSecond, "pgbench")}",
            "≥ 1.2 (Kafka ≥ 1.0) × pgbench");
        AddCpu("flat out", phase, "≤ 0.5 ms (Kafka ≤ 0.6)", "");
        results.Add(log, "flat out: deliveries that waited in the queue", $"{phase.Queued:0.00} an event");
        results.Add(log, "flat out: memory of API + Delivery", Memories(), "≤ 300 MB");
    }

    private async Task AtRateAsync(int rate)
    {
        var phase = await MeasureAsync(publisher => publisher.AtRateAsync(rate, Seconds(20, 6)));
        AddCpu($"{rate}/s", phase, rate == 300 ? "≤ 1.9 ms" : "", rate == 300 ? "≤ 0.8 ms" : "");
        var (webhook, accept) = (Percentiles.Of(phase.Ledger.AcceptToWebhook()), Percentiles.Of(phase.Load.Latencies));
        results.Add(log, $"{rate}/s: accept → webhook, p50 / p99", $"{webhook.P50:0.0} / {webhook.P99:0.0} ms",
            rate == 300 ? "≤ 4 / 12 ms" : "≤ 8 / 40 ms");
        results.Add(log, $"{rate}/s: caller's wait, p50 / p99", $"{accept.P50:0.0} / {accept.P99:0.0} ms");
    }

    private async Task BatchAsync()
    {
        var phase = await MeasureAsync(publisher => publisher.BatchesAsync(Seconds(10, 3), clients: 4), isSubscribed: false);
        var rate = phase.Ledger.AcceptedCount / phase.Load.Elapsed.TotalSeconds;
        results.Add(log, "POST /events/batch of 100", $"{rate:n0} rows/s{RatioTo(rate, _copiedPerSecond, "COPY")}", "≥ 0.5 × COPY");
    }

    /// <summary>The same events with a schema and without, in turns, so that both have the machine's moods.</summary>
    private async Task SchemaAsync()
    {
        var (without, with) = (new List<Phase>(), new List<Phase>());
        for (var turn = 0; turn < 6; turn++)
        {
            foreach (var (phases, isChecked) in new[] { (without, false), (with, true) })
            {
                phases.Add(await MeasureAsync(publisher => publisher.FlatOutAsync(Seconds(6, 2)), isSubscribed: false,
                    () => Publisher.OfThirtyPropertiesAsync(_client, isChecked)));
            }
        }
        // The first turn is the compiler's.
        var (a, b) = (Median(without.Skip(1).Select(ApiCpu)), Median(with.Skip(1).Select(ApiCpu)));
        var (all, allWith) = (Median(without.Skip(1).Select(AllCpu)), Median(with.Skip(1).Select(AllCpu)));
        results.Add(log, "schema of 30 properties, enforced: CPU of accepting an event, with ÷ without",
            $"{allWith / all:0.00} ({allWith * 1e6:0} and {all * 1e6:0} µs; API alone {b / a:0.00}: {b * 1e6:0} and {a * 1e6:0} µs)",
            "≤ 1.1");

        static double ApiCpu(Phase phase) => phase.CpuPerEvent["api"];
        static double AllCpu(Phase phase) => phase.CpuPerEvent.Values.Sum();
        static double Median(IEnumerable<double> values) => values.Order().ToArray() is var sorted ? sorted[sorted.Length / 2] : 0;
    }

    private async Task HeldAsync()
    {
        var before = await MeasureAsync(publisher => publisher.AtRateAsync(500, Seconds(10, 4)));
        Phase during;
        await using (await HoldAsync())
            during = await MeasureAsync(publisher => publisher.AtRateAsync(500, _long ? TimeSpan.FromMinutes(10) : Seconds(60, 8)));
        var after = await MeasureAsync(publisher => publisher.AtRateAsync(500, Seconds(10, 4)));
        var webhooks = new[] { before, during, after }.Select(p => $"{Percentiles.Of(p.Ledger.AcceptToWebhook()).P99:0.0}");
        var held = during.Load.Elapsed.TotalSeconds;
        results.Add(log, $"a transaction held open for {held:0} s at 500/s: webhook p99 before / during / after",
            $"{string.Join(" / ", webhooks)} ms", "during ≤ 2 × before");
    }

    /// <summary>While it is open nothing can be vacuumed that was there when it began, or came since.</summary>
    private async Task<NpgsqlConnection> HoldAsync()
    {
        var connection = await _database.OpenConnectionAsync();
        await connection.BeginTransactionAsync(System.Data.IsolationLevel.RepeatableRead);
        await using var look = new NpgsqlCommand("SELECT count(*) FROM tenants", connection);
        await look.ExecuteScalarAsync();
        return connection;
    }

    private async Task IdleAsync()
    {
        // What there is to clean up after the load before is not its idling.
        await ExecuteAsync("VACUUM (ANALYZE)");
        await ExecuteAsync("CHECKPOINT");
        // What a connection did that then fell idle is counted up to ten seconds later.
        await Task.Delay(TimeSpan.FromSeconds(11));
        await ForgetStatementsAsync();
        var (transactions, cpu, started) = (await CountAsync(Transactions), _system.Cpu(), Stopwatch.GetTimestamp());
        await Task.Delay(Seconds(30, 6));
        var (elapsed, used) = (Stopwatch.GetElapsedTime(started).TotalSeconds, Since(cpu));
        await TellStatementsAsync((int)elapsed);
        transactions = await CountAsync(Transactions) - transactions;
        results.Add(log, "idle: transactions", $"{transactions / elapsed:0.0}/s");
        results.Add(log, "idle: CPU of one core",
            $"{used.Values.Sum() / elapsed:0.0%} ({string.Join(", ", used.Select(u => $"{u.Key} {u.Value / elapsed:0.0%}"))})", "< 1 %");
    }

    private async Task MemoryAsync()
    {
        _system.ForgetPeaks();
        await MeasureAsync(publisher => publisher.AtRateAsync(1_000, Seconds(60, 5)));
        var first = Memories();
        var rest = _long ? TimeSpan.FromMinutes(options.NumberOf("--minutes", 29)) : Seconds(60, 5);
        await MeasureAsync(publisher => publisher.AtRateAsync(1_000, rest));
        results.Add(log, $"memory of API + Delivery at 1,000/s, first minute → {rest.TotalMinutes:0} minutes later",
            $"{first} → {Memories()}", "≤ 300 MB, flat");
    }

    private async Task FilledAsync()
    {
        var duration = _long ? TimeSpan.FromSeconds(60) : Seconds(20, 5);
        var empty = await MeasureAsync(publisher => publisher.FlatOutAsync(duration));
        var (stored, queued) = (options.NumberOf("--stored", 10_000_000), options.NumberOf("--queued", 1_000_000));
        await using var sleeper = await Publisher.StartAsync(_client);
        var type = $"bench.stored.{Guid.CreateVersion7():N}";
        await using (var connection = await _database.OpenConnectionAsync())
        {
            var tenant = await TenantAsync();
            var events = await Ceilings.CopyEventsAsync(connection, "events", tenant, type, stored);
            await EnqueueAsync(connection, tenant, sleeper, events.Take(queued), "1 hour");
        }
        await ExecuteAsync("VACUUM (ANALYZE)");
        var full = await MeasureAsync(publisher => publisher.FlatOutAsync(duration));
        results.Add(log, $"{stored:n0} events stored, {queued:n0} deliveries queued: CPU per event ÷ empty",
            $"{full.CpuPerEvent.Values.Sum() / empty.CpuPerEvent.Values.Sum():0.00} ({full.Rate:n0}/s, empty {empty.Rate:n0}/s)", "≤ 1.2");
        await ExecuteAsync($"DELETE FROM delivery_queue WHERE subscription_id = '{IdOf(sleeper)}'");
    }

    private Task DrainAsync() => DrainAsync("drain", options.NumberOf("--due", _quick ? 50_000 : 1_000_000));

    private async Task DrainBesideHeldAsync()
    {
        await using (await HoldAsync())
            await DrainAsync("drain beside a transaction held open", options.NumberOf("--due", _quick ? 50_000 : 200_000));
    }

    private async Task DrainAsync(string name, int due)
    {
        await using var publisher = await Publisher.StartAsync(_client);
        await using var connection = await _database.OpenConnectionAsync();
        var tenant = await TenantAsync();
        var events = await Ceilings.CopyEventsAsync(connection, "events", tenant, publisher.Type + ".stored", due);
        foreach (var id in events)
            publisher.Ledger.Accepted(TypeId.Format(TypeId.Event, id));
        await ExecuteAsync("CHECKPOINT");
        _system.ForgetPeaks();
        var before = _system.Memory("delivery").Now;
        var cpu = _system.Cpu();
        await EnqueueAsync(connection, tenant, publisher, events, "0");
        await ForgetStatementsAsync();
        var started = Stopwatch.GetTimestamp();
        await ExecuteAsync($"SELECT pg_notify('{Notifications.Deliveries}', '')");
        // Of a million it is the rate that counts, unless there is time for all of them.
        await Until.TrueAsync(
            () => Task.FromResult(publisher.Ledger.ArrivedCount >= due), _long ? TimeSpan.FromHours(1) : Seconds(40, 8));
        var (arrived, elapsed) = (publisher.Ledger.ArrivedCount, Stopwatch.GetElapsedTime(started));
        var (rate, peak, used) = (arrived / elapsed.TotalSeconds, _system.Memory("delivery").Peak, Since(cpu));
        await TellStatementsAsync(arrived);
        results.Add(log, $"{name} of {due:n0} due deliveries of one subscription",
            $"{rate:n0}/s in {elapsed.TotalSeconds:0} s{RatioTo(rate, _sustained, "flat out")}", "≥ 0.8 × flat out");
        results.Add(log, $"{name}: CPU per event", $"{used.Values.Sum() / arrived * 1000:0.00} ms");
        results.Add(log, $"{name}: memory of Delivery, before → peak", $"{Mega(before)} → {Mega(peak)} MB", "flat");

        // The rest is taken back. What was begun ends; then all that was sent is recorded, all that was recorded was sent, and together
        // with the rest it is everything.
        var rest = await ExecuteAsync($"DELETE FROM delivery_queue WHERE subscription_id = '{IdOf(publisher)}' AND claimed_by IS NULL");
        await Until.TrueAsync(async () =>
            await CountAsync($"SELECT count(*) FROM delivery_queue WHERE subscription_id = '{IdOf(publisher)}'") == 0, s_settling);
        var recorded = await RecordedAsync(publisher);
        _accepted += recorded.Count;
        _lost += publisher.Ledger.AcceptedIds.Count(id => recorded.Contains(id) == publisher.Ledger.FirstArrival(id) is null)
            + Math.Abs(due - rest - recorded.Count);
        _duplicates += publisher.Ledger.Duplicates();
    }

    /// <summary>
    /// Runs a load until the last of what it was answered 202 for is recorded, and reconciles: time and processor time are all of that.
    /// </summary>
    private async Task<Phase> MeasureAsync(
        Func<Publisher, Task<LoadResult>> load, bool isSubscribed = true, Func<Task<Publisher>>? of = null)
    {
        await using var publisher = await (of?.Invoke() ?? Publisher.StartAsync(_client, isSubscribed: isSubscribed));
        await ForgetStatementsAsync();
        var queued = await CountAsync(Queued);
        var (cpu, own, started) = (_system.Cpu(), Environment.CpuUsage.TotalTime, Stopwatch.GetTimestamp());
        var result = await load(publisher);
        var accepted = publisher.Ledger.AcceptedCount;
        if (isSubscribed)
            await publisher.ArrivedAsync(s_settling);
        var records = Records(publisher, isSubscribed);
        await Until.TrueAsync(async () => await CountAsync($"SELECT count(*) FROM ({records}) r") >= accepted, s_settling);
        var (elapsed, used) = (Stopwatch.GetElapsedTime(started), Since(cpu));
        await TellStatementsAsync(accepted);
        var recorded = await RecordedAsync(publisher, isSubscribed);
        _accepted += accepted;
        _lost += publisher.Ledger.AcceptedIds.Count(id =>
            !recorded.Contains(id) || isSubscribed && publisher.Ledger.FirstArrival(id) is null);
        _duplicates += publisher.Ledger.Duplicates();
        _refused += result.Refused.Values.Sum();
        if (result.Refused.Count > 0)
            Console.Error.WriteLine($"{log,-9} refused: {result.RefusedText}");
        return new Phase(result, publisher.Ledger, accepted / elapsed.TotalSeconds,
            used.ToDictionary(u => u.Key, u => u.Value / accepted), (Environment.CpuUsage.TotalTime - own).TotalSeconds / accepted,
            (double)(await CountAsync(Queued) - queued) / accepted);
    }

    private void AddCpu(string name, Phase phase, string target, string servicesTarget)
    {
        var (all, services) = (phase.CpuPerEvent.Values.Sum(), s_services.Sum(s => phase.CpuPerEvent[s]));
        var parts = phase.CpuPerEvent.OrderByDescending(part => part.Value).Select(part => $"{part.Key} {part.Value * 1e6:0} µs");
        results.Add(log, $"{name}: CPU per event, everything but generator and receiver",
            $"{all * 1e3:0.00} ms ({string.Join(", ", parts)})", target);
        results.Add(log, $"{name}: CPU per event, API + Delivery", $"{services * 1e3:0.00} ms", servicesTarget);
        results.Add(log, $"{name}: CPU per event, generator and receiver", $"{phase.OwnCpuPerEvent * 1e3:0.00} ms");
    }

    private static async Task EnqueueAsync(
        NpgsqlConnection connection, Guid tenant, Publisher publisher, IEnumerable<Guid> events, string later)
    {
        await using var transaction = await connection.BeginTransactionAsync();
        foreach (var chunk in events.Chunk(10_000))
        {
            await using var batch = new NpgsqlBatch(connection);
            batch.BatchCommands.Add(DeliveryQueue.Enqueue([.. chunk.Select(id =>
                new NewDelivery(tenant, TypeId.NewGuid(), id, IdOf(publisher)) { DataBytes = Publisher.DefaultSize })]));
            await batch.ExecuteNonQueryAsync();
        }
        if (later != "0")
        {
            await using var postpone = new NpgsqlCommand(
                $"UPDATE delivery_queue SET next_attempt_at = now() + interval '{later}' WHERE subscription_id = '{IdOf(publisher)}'",
                connection);
            await postpone.ExecuteNonQueryAsync();
        }
        await transaction.CommitAsync();
    }

    /// <summary>The events that are in the history as delivered; where nobody subscribed, that are stored.</summary>
    private static string Records(Publisher publisher, bool isSubscribed) => isSubscribed
        ? $"SELECT event_id FROM deliveries WHERE subscription_id = '{IdOf(publisher)}' AND status = 'succeeded'"
        : $"SELECT id FROM events WHERE tenant_id = (SELECT id FROM tenants) AND type = '{publisher.Type}'";

    private async Task<HashSet<string>> RecordedAsync(Publisher publisher, bool isSubscribed = true)
    {
        await using var command = _database.CreateCommand(Records(publisher, isSubscribed));
        await using var reader = await command.ExecuteReaderAsync();
        var ids = new HashSet<string>();
        while (await reader.ReadAsync())
            ids.Add(TypeId.Format(TypeId.Event, reader.GetGuid(0)));
        return ids;
    }

    private const string Transactions =
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'triggersdb'";

    /// <summary>Rows that the queue has had, a little late.</summary>
    private const string Queued = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'delivery_queue'";

    private async Task<long> CountAsync(string sql)
    {
        await using var command = _database.CreateCommand(sql);
        return (long)(await command.ExecuteScalarAsync())!;
    }

    private async Task<int> ExecuteAsync(string sql)
    {
        await using var command = _database.CreateCommand(sql);
        return await command.ExecuteNonQueryAsync();
    }

    private async Task ForgetStatementsAsync()
    {
        if (_profiles)
            await ExecuteAsync("SELECT pg_stat_statements_reset()");
    }

    /// <summary>Says which statements took most time: microseconds, calls and rows, of an event (or, when idle, of a second).</summary>
    private async Task TellStatementsAsync(int per)
    {
        if (!_profiles)
            return;
        await using var command = _database.CreateCommand(
            $"""
            SELECT format('%s µs %s calls %s rows: %s', round(total_exec_time * 1000 / {per}), round(calls::numeric / {per}, 3),
                round(rows::numeric / {per}, 3), left(regexp_replace(query, '\s+', ' ', 'g'), 110))
            FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 12
            """);
        await using var reader = await command.ExecuteReaderAsync();
        while (await reader.ReadAsync())
            Console.Error.WriteLine($"{log,-9}     {reader.GetString(0)}");
    }

    private async Task<Guid> TenantAsync()
    {
        await using var command = _database.CreateCommand("SELECT id FROM tenants");
        return (Guid)(await command.ExecuteScalarAsync())!;
    }

    private static Guid IdOf(Publisher publisher) =>
        TypeId.TryParse(TypeId.Subscription, publisher.Subscription, out var id) ? id : throw new FormatException(publisher.Subscription);

    private Dictionary<string, double> Since(Dictionary<string, double> before) =>
        _system.Cpu().ToDictionary(now => now.Key, now => now.Value - before[now.Key]);

    private string Memories()
    {
        var memories = s_services.Select(_system.Memory).ToArray();
        return $"{Mega(memories.Sum(m => m.Peak))} MB ({string.Join(" + ", memories.Select(m => Mega(m.Peak)))}; "
            + $"{Mega(memories.Sum(m => m.Files))} of it files)";
    }

    private static string Mega(long bytes) => $"{bytes / 1e6:0}";

    private static string RatioTo(double rate, double? ceiling, string name) => ceiling is { } c ? $" = {rate / c:0.00} × {name}" : "";

    private TimeSpan Seconds(double normally, double quick) => TimeSpan.FromSeconds(_quick ? quick : normally);

    private bool IsAsked(string name) => options.Of("--only", "") is { Length: > 0 } only
        ? only.Split(',').Contains(name)
        : _long || name is not ("memory" or "filled");

    /// <summary>What came of a load.</summary>
    /// <param name="Load">What callers were answered.</param>
    /// <param name="Ledger">What arrived.</param>
    /// <param name="Rate">Events a second, from the first request to the last record.</param>
    /// <param name="CpuPerEvent">Seconds, by part of the system.</param>
    /// <param name="OwnCpuPerEvent">The same of generator and receiver.</param>
    /// <param name="Queued">Deliveries, by event, that were not attempted straight from the log.</param>
    private sealed record Phase(
        LoadResult Load, Ledger Ledger, double Rate, IReadOnlyDictionary<string, double> CpuPerEvent, double OwnCpuPerEvent,
        double Queued);
}
