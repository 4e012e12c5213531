namespace Triggers.AppHost.Processes;

/// <summary>Everything that a guard runs.</summary>
internal sealed class Children
{
    private readonly Dictionary<string, SupervisedProcess> _running = [];
    private volatile bool _hurry;

    public void Start(SupervisedProcess process)
    {
        lock (_running)
        {
            _running.Add(process.Name, process);
            process.Start();
        }
    }

    public SupervisedProcess Find(string name)
    {
        lock (_running)
            return _running[name];
    }

    /// <summary>Whoever waits for the end is gone, or impatient.</summary>
    public void Hurry() => _hurry = true;

    /// <summary>
    /// Stops all in order. Told to stop, everything gets its time; in a hurry, all of it together must be gone within 5 s, and what
    /// was cut short is done again at the next start.
    /// </summary>
    public async Task StopAsync()
    {
        foreach (var name in Topology.StopOrder)
        {
            SupervisedProcess? process;
            lock (_running)
                _running.TryGetValue(name, out process);
            if (process is not null)
                await process.StopAsync(() => GraceOf(name));
        }
    }

    private TimeSpan GraceOf(string name) => TimeSpan.FromSeconds(name switch
    {
        Topology.Postgres => _hurry ? 1.2 : 20,
        Topology.Delivery or Topology.Api => _hurry ? 0.8 : 25,
        _ => _hurry ? 0.2 : 5,
    });
}
