namespace Triggers.AppHost.Processes;

/// <summary>Everything that a guard runs.</summary>
internal sealed class Children
{
    private readonly Dictionary<string, SupervisedProcess> _running = [];
    private volatile bool _hurry;
    private bool _stopping;

    /// <exception cref="OperationCanceledException">All is being stopped already: nothing may start behind its back.</exception>
    public void Start(SupervisedProcess process)
    {
        lock (_running)
        {
            if (_stopping)
                throw new OperationCanceledException();
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
        ILookup<string, SupervisedProcess> running;
        lock (_running)
        {
            _stopping = true;
            running = _running.Values.ToLookup(process => process.Resource);
        }
        foreach (var resource in Topology.StopOrder)
            await Task.WhenAll(running[resource].Select(process => process.StopAsync(() => GraceOf(resource))));
    }

    private TimeSpan GraceOf(string resource) => TimeSpan.FromSeconds(resource switch
    {
        Topology.Postgres => _hurry ? 1.2 : 20,
        Topology.Kafka => _hurry ? 0.8 : 10,
        Topology.Delivery or Topology.Api => _hurry ? 0.8 : 25,
        _ => _hurry ? 0.2 : 5,
    });
}
