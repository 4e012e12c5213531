namespace Triggers.Delivery.Subscriptions;

/// <summary>
/// The way to one subscription: so many attempts at once, so much data in memory, and no more. What does not fit stays in Postgres, so a
/// lane that hangs holds up nobody. Guarded by the lock of <see cref="Lanes"/>.
/// </summary>
internal sealed class Lane(Guid subscriptionId, double limit)
{
    public Guid SubscriptionId { get; } = subscriptionId;

    /// <summary>What the receiver is known to stand, in attempts at once; the fraction is what has grown toward one more.</summary>
    public double Limit { get; set; } = limit;

    /// <summary>The most at once whatever it stands: none while its circuit is open, one as a probe; null while it is closed.</summary>
    public int? Cap { get; set; }

    /// <summary>The most attempts in flight.</summary>
    public int Places => Math.Min((int)Limit, Math.Min(Cap ?? int.MaxValue, Permits?.Limits.Concurrency ?? int.MaxValue));

    /// <summary>What its subscription's limits leave to it; null: it has none.</summary>
    public Permits? Permits { get; set; }

    /// <summary>When it was halved last: what began before says nothing of half as many.</summary>
    public long HalvedAt { get; set; }

    /// <summary>Timestamp until when nothing is started, because the receiver asked for that.</summary>
    public long HeldUntil { get; set; }

    /// <summary>Attempts in flight, and places kept for what is being claimed.</summary>
    public int Busy { get; set; }

    /// <summary>Data of those of them whose request is not written yet.</summary>
    public long Bytes { get; set; }

    /// <summary>Timestamp from when on something is due, as far as this process knows; <see cref="long.MaxValue"/> for nothing.</summary>
    public long DueAt { get; set; } = long.MaxValue;

    /// <summary>
    /// Until when all that is due has been claimed, as far as this process knows; the database's time. Every few seconds it looks at all of
    /// it again, for what was written late.
    /// </summary>
    public DateTime ClaimedTo { get; set; }

    /// <summary>Those of the attempts in flight that were begun before their delivery was written.</summary>
    public int New { get; set; }

    /// <summary>How many new deliveries came since the last claim that are not to wait for all that is due.</summary>
    public int Passing { get; set; }

    /// <summary>How long its attempts take, as the last ones did; the same unit as timestamps. 0: not known.</summary>
    public double Duration { get; set; }

    /// <summary>When the last one ended, a timestamp.</summary>
    public long EndedAt { get; set; }

    /// <summary>
    /// How large the next of what is due is: known of what was too large beside what is in memory, otherwise as large as the last were.
    /// </summary>
    public long NextBytes { get; set; }

    /// <summary>How many wait for others to go with, as far as this process knows.</summary>
    public int Gathered { get; set; }

    /// <summary>Data of those.</summary>
    public long GatheredBytes { get; set; }

    /// <summary>Which claim asked for it last.</summary>
    public long AskedBy { get; set; }

    /// <summary>
    /// How many of what is due there is memory for, as far as their size is known. More would be locked in Postgres, and left.
    /// </summary>
    public int Room =>
        Bytes == 0 && NextBytes > Lanes.MaxBytes ? 1 : (int)((Lanes.MaxBytes - Bytes) / Math.Max(NextBytes, 1));

    /// <summary>Whether there are a place and memory for one more.</summary>
    public bool HasPlace => Busy < Places && Room > 0;

    /// <summary>How many new deliveries may be in flight while others are due.</summary>
    public int MayPass => Permits is null && Places >= 4 ? Places / 2 : 0;

    /// <summary>Whether its limits permit one more at that moment, a timestamp.</summary>
    public bool HasPermit(long now) => Permits is not { } permits || !permits.IsBusy && permits.Available(Busy, now) > 0;

    /// <summary>Whether something can be started as soon as its limits permit it.</summary>
    public bool MayStart(long now) => HasPlace && HeldUntil <= now;

    /// <summary>Whether something can be started.</summary>
    public bool CanStart(long now) => MayStart(now) && HasPermit(now);
}
