namespace Triggers.Core.Subscriptions;

/// <summary>Types of the events that test a receiver. They are the system's own, and go only to the subscription that is tested.</summary>
public static class TestEvents
{
    /// <summary>Sent as any other event is.</summary>
    public const string Genuine = "triggers.test";

    /// <summary>Signed with a secret that nobody knows: a receiver must refuse it.</summary>
    public const string Forged = "triggers.test.forged";

    /// <summary>Signed as it should be, an hour ago: a receiver must refuse it, or whoever once saw a webhook can repeat it.</summary>
    public const string Old = "triggers.test.old";

    /// <summary>How long ago that one claims to have been signed.</summary>
    public static readonly TimeSpan Age = TimeSpan.FromHours(1);
}
