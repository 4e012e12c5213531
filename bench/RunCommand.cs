namespace Triggers.Bench;

/// <summary>The benchmark: all of it, on one log after the other.</summary>
internal static class RunCommand
{
    public const string Help =
        """
        run: starts everything on this machine, prints one table, reconciles every event by its id. Exits 1 if one is lost.
          --log WHICH        postgres, kafka or both                        both
          --kafka-home DIR   an Apache Kafka, unpacked                      $KAFKA_HOME
          --only NAME,...    cold, ceilings, idle, flat, at-300, at-1000, batch, schema, held, memory, filled, drain,
                             drain-held
          --quick            a few seconds each
          --long             everything at its full length, with memory and filled: hours
          --minutes N        of load for memory, after the first one        29
          --due N            deliveries to drain                            1000000, beside held: 200000, quick: 50000
          --stored N         events in the filled system                    10000000
          --queued N         deliveries waiting in it                       1000000
          --profile          which statements take Postgres' time, of each load (it costs some itself)
          --save             writes the table to bench/RESULTS.md, with --long to RESULTS.long.md
        """;

    public static async Task<int> RunAsync(Options options)
    {
        var logs = options.Of("--log", "both") is var log and not "both" ? [log] : new[] { "postgres", "kafka" };
        var kafka = options.Of("--kafka-home", Environment.GetEnvironmentVariable("KAFKA_HOME") ?? "");
        if (logs.Contains("kafka") && kafka.Length == 0 || logs.Except(["postgres", "kafka"]).Any())
        {
            Console.Error.WriteLine("--log is postgres, kafka or both; with Kafka, KAFKA_HOME or --kafka-home says where it is.");
            return 2;
        }
        var results = new Results(logs);
        var lost = 0;
        foreach (var each in logs)
            lost += await new Measurements(each, each == "kafka" ? kafka : null, options, results).RunAsync();
        var table = results.Table();
        Console.WriteLine();
        Console.WriteLine(table);
        if (options.Has("--save"))
        {
            var root = new DirectoryInfo(AppContext.BaseDirectory).Parent!.Parent!.Parent!.FullName;
            var command = string.Join(' ', ["bench/run", .. Environment.GetCommandLineArgs().Skip(2).Except(["--save"])]);
            await File.WriteAllTextAsync(
                Path.Combine(root, options.Has("--long") ? "RESULTS.long.md" : "RESULTS.md"),
                $"# The latest measurements\n\nOf `{command}`.\n\n{table}");
        }
        return lost == 0 ? 0 : 1;
    }
}
