using Npgsql;
using NpgsqlTypes;

namespace Triggers.Core.State;

/// <summary>The end of a subscription, of which its tenant is to be told.</summary>
/// <param name="TenantId">Whose it was.</param>
/// <param name="SubscriptionId">The subscription.</param>
/// <param name="Url">Its address.</param>
/// <param name="Type">The event by which the tenant is told, one of <see cref="OperationalEventTypes"/>.</param>
/// <param name="Reason">How it came to that; null where the type says it.</param>
/// <param name="ExpiresAt">When its time was over; null where something else ended it.</param>
public sealed record SubscriptionEnd(
    Guid TenantId, Guid SubscriptionId, string Url, string Type, string? Reason, DateTimeOffset? ExpiresAt);

/// <summary>
/// The ends of subscriptions: by request, by their receivers, or because their time is over. The latter count as deleted from that moment
/// on, by the database's clock; that they are is written soon after. Whatever ends one says in the same statement that its tenant is to be
/// told, and the delivery service tells it.
/// </summary>
public static class SubscriptionEnds
{
    /// <summary>The reason of what somebody deleted.</summary>
    public const string Requested = "requested";

    /// <summary>The reason of a hook whose address was unsubscribed.</summary>
    public const string Unsubscribed = "unsubscribed";

    /// <summary>The reason where the receiver said that it is gone for good.</summary>
    public const string Gone = "gone";

    /// <summary>Whether a subscription <c>s</c> is deleted, or its time is over.</summary>
    public const string HasEnded = "(s.deleted_at IS NOT NULL OR coalesce(s.expires_at <= now(), false))";

    private const string IsOver = "expires_at <= now() AND deleted_at IS NULL";

    /// <summary>
    /// Whether any are to be deleted, and whether a tenant is to be told of any.
    /// </summary>
    public const string Look = $"SELECT EXISTS (SELECT FROM subscriptions WHERE {IsOver}), EXISTS (SELECT FROM subscription_ends)";

    /// <summary>Deletes those whose time is over.</summary>
    /// <param name="which">A condition that they meet, too.</param>
    public static string DeleteThoseOver(string which = "true") => End(
        $"UPDATE subscriptions SET deleted_at = now() WHERE {IsOver} AND {which} RETURNING *",
        $"'{OperationalEventTypes.Expired}', NULL, expires_at");

    /// <summary>Deletes those that are not deleted yet. A row is affected for each.</summary>
    /// <param name="which">The condition that they meet.</param>
    /// <param name="reason">Why.</param>
    public static string Delete(string which, string reason) => End(
        $"UPDATE subscriptions SET deleted_at = now() WHERE deleted_at IS NULL AND {which} RETURNING *",
        $"'{OperationalEventTypes.Deleted}', '{reason}', NULL::timestamptz");

    /// <summary>
    /// Disables subscriptions whose receivers are gone for good, as long as they are as they were then; REST hooks are deleted. What
    /// somebody is changing is left as it is, and not waited for: the results of all tenants are written with this.
    /// </summary>
    /// <param name="gone">The subscriptions, with their revisions.</param>
    public static NpgsqlBatchCommand DisableGone(IReadOnlyList<DeliveryResult> gone)
    {
        var command = new NpgsqlBatchCommand(End(
            """
            UPDATE subscriptions s SET enabled = false, disabled_reason = 'gone', updated_at = now(),
                deleted_at = CASE WHEN s.is_hook THEN now() END
            FROM (
                SELECT o.id AS gone_id FROM subscriptions o
                WHERE (o.id, o.revision) IN (SELECT * FROM unnest(@gone, @revisions)) AND (o.enabled OR o.is_hook)
                    AND o.deleted_at IS NULL
                ORDER BY o.id FOR NO KEY UPDATE SKIP LOCKED
            ) g
            WHERE s.id = g.gone_id
            RETURNING s.*
            """,
            $"CASE WHEN is_hook THEN '{OperationalEventTypes.Deleted}' ELSE '{OperationalEventTypes.Disabled}' END, '{Gone}', "
                + "NULL::timestamptz"));
        command.Parameters.AddColumn("gone", NpgsqlDbType.Uuid, gone, r => r.SubscriptionId);
        command.Parameters.AddColumn("revisions", NpgsqlDbType.Integer, gone, r => r.Revision);
        return command;
    }

    /// <summary>
    /// Takes ends of which tenants are to be told, in their order and no others that somebody else has: rows of tenant, subscription,
    /// address, type, reason, and when its time was over.
    /// </summary>
    /// <param name="most">The most of them.</param>
    public static NpgsqlBatchCommand TakeUntold(int most) => new(
        """
        WITH untold AS MATERIALIZED (SELECT id FROM subscription_ends ORDER BY id LIMIT @most FOR UPDATE SKIP LOCKED),
        taken AS (DELETE FROM subscription_ends e USING untold u WHERE e.id = u.id RETURNING e.*)
        SELECT tenant_id, subscription_id, url, type, reason, expires_at FROM taken ORDER BY id
        """)
    {
        Parameters = { new("most", most) },
    };

    private static string End(string update, string how) =>
        $"""
        WITH ended AS (
            {update}
        )
        INSERT INTO subscription_ends (tenant_id, subscription_id, url, type, reason, expires_at)
        SELECT tenant_id, id, url, {how} FROM ended WHERE inbox IS NULL
        """;
}
