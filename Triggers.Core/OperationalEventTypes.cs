namespace Triggers.Core;

/// <summary>
/// Types of the events by which a tenant is told what becomes of its subscriptions. They are sent to subscriptions that ask for them by
/// name, or for all of them, and to no other.
/// </summary>
public static class OperationalEventTypes
{
    /// <summary>Its circuit opened: its deliveries are held.</summary>
    public const string Failing = "triggers.subscription.failing";

    /// <summary>Its circuit closed: a probe succeeded.</summary>
    public const string Recovered = "triggers.subscription.recovered";

    /// <summary>It is disabled, since it failed for too long, or its receiver is gone for good.</summary>
    public const string Disabled = "triggers.subscription.disabled";

    /// <summary>It is deleted: by request, unsubscribed as a REST hook, or since the receiver of one is gone for good.</summary>
    public const string Deleted = "triggers.subscription.deleted";

    /// <summary>Its time was over, and it is deleted.</summary>
    public const string Expired = "triggers.subscription.expired";
}
