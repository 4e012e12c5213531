namespace Triggers.Core.State;

/// <summary>
/// The end of subscriptions whose time is over. They count as deleted from that moment on, by the database's clock; that they are is
/// written soon after.
/// </summary>
public static class SubscriptionEnds
{
    /// <summary>Whether a subscription <c>s</c> is deleted, or its time is over.</summary>
    public const string HasEnded = "(s.deleted_at IS NOT NULL OR coalesce(s.expires_at <= now(), false))";

    private const string IsOver = "expires_at <= now() AND deleted_at IS NULL";

    /// <summary>Whether any are to be deleted: every write to the table, also one of nothing, has the subscriptions read again.</summary>
    public const string AnyIsOver = $"SELECT EXISTS (SELECT FROM subscriptions WHERE {IsOver})";

    /// <summary>Deletes those whose time is over, and answers tenant, subscription, address, and since when.</summary>
    public const string DeleteThoseOver =
        $"UPDATE subscriptions SET deleted_at = now() WHERE {IsOver} RETURNING tenant_id, id, url, expires_at";
}
