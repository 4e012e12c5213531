using Triggers.Core;

namespace Triggers.Delivery.Waking;

/// <summary>Who is woken by what.</summary>
internal sealed class Wakeups(TimeProvider time)
{
    private long _lastHeard = time.GetTimestamp();
    private int _sweep;

    /// <summary>There may be new events in the log.</summary>
    public Signal Projection { get; } = new();

    /// <summary>A place is free, or something is due.</summary>
    public Signal Dispatch { get; } = new();

    /// <summary>Deliveries of an event are to be made in portions.</summary>
    public Signal FanOuts { get; } = new();

    /// <summary>A circuit opened, or something of one is to be written.</summary>
    public Signal Circuits { get; } = new();

    /// <summary>There may be a new replay job.</summary>
    public Signal Replays { get; } = new();

    /// <summary>A subscription changed, so that one may have ended.</summary>
    public Signal Subscriptions { get; } = new();

    /// <summary>There are new dead letters.</summary>
    public Signal DeadLetters { get; } = new();

    /// <summary>Timestamp of the last sign of activity anywhere.</summary>
    public long LastHeard => Interlocked.Read(ref _lastHeard);

    /// <summary>A notification came from Postgres.</summary>
    public void Heard(string channel)
    {
        Interlocked.Exchange(ref _lastHeard, time.GetTimestamp());
        if (channel == Notifications.Events)
        {
            Projection.Set();
            return;
        }
        Sweep();
        Replays.Set();
        if (channel == Notifications.Subscriptions)
            Subscriptions.Set();
    }

    /// <summary>Notifications may have been missed: everybody looks.</summary>
    public void All()
    {
        Heard(Notifications.Events);
        Sweep();
    }

    /// <summary>Whether something may be due that this process does not know of. Asked once, it is forgotten.</summary>
    public bool TakeSweep() => Interlocked.Exchange(ref _sweep, 0) == 1;

    /// <summary>Something may be due, or a subscription be other, than this process knows.</summary>
    public void Sweep()
    {
        Interlocked.Exchange(ref _sweep, 1);
        Dispatch.Set();
    }
}
