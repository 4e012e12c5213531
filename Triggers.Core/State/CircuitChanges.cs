using Npgsql;
using NpgsqlTypes;
using Triggers.Core.Tables;

namespace Triggers.Core.State;

/// <summary>That attempts to a subscription fail, one after the other.</summary>
/// <param name="SubscriptionId">Whose.</param>
/// <param name="Revision">The subscription as the attempts were made to it: what fails at another address says nothing of this one.</param>
/// <param name="FailingFor">For how long there have been none but failed ones.</param>
/// <param name="Outcome">How the newest ended.</param>
/// <param name="StatusCode">The HTTP status of that, when there was an answer.</param>
public sealed record Failing(Guid SubscriptionId, int Revision, TimeSpan FailingFor, AttemptOutcome Outcome, int? StatusCode);

/// <summary>
/// The statements on <c>circuits</c>. Whoever changes one by what an attempt showed does so under the epoch that the attempt was made
/// under, and gets a row if nothing had changed since; all processes hear of a change.
/// </summary>
public static class CircuitChanges
{
    private const string Notify = $"SELECT pg_notify('{Notifications.Subscriptions}', '')";

    /// <summary>All that are not closed: subscription, epoch, and in how many seconds a probe may be made; null: none ever.</summary>
    public const string All =
        """
        SELECT c.subscription_id, c.epoch, extract(epoch FROM c.next_probe_at - clock_timestamp())::float8
        FROM circuits c JOIN subscriptions s ON s.id = c.subscription_id WHERE s.deleted_at IS NULL
        """;

    /// <summary>Opens the circuit of a subscription whose receiver fails, unless it is open. One row affected: it was opened.</summary>
    /// <param name="failing">What was seen.</param>
    /// <param name="pause">How long until the first probe.</param>
    public static NpgsqlBatchCommand Open(Failing failing, TimeSpan pause) => new(
        $"""
        WITH opened AS (
            INSERT INTO circuits (subscription_id, tenant_id, state, reason, failing_since, next_probe_at, last_outcome, last_status_code)
            SELECT id, tenant_id, 'open', 'failures', clock_timestamp() - @failing, clock_timestamp() + @pause, @outcome, @code
            FROM subscriptions WHERE id = @id AND revision = @revision AND deleted_at IS NULL
            ON CONFLICT DO NOTHING
            RETURNING 1
        )
        SELECT 1, pg_notify('{Notifications.Subscriptions}', '') FROM opened
        """)
    {
        Parameters =
        {
            new("id", failing.SubscriptionId), new("revision", failing.Revision), new("failing", failing.FailingFor), new("pause", pause),
            Outcome(failing.Outcome), Code(failing.StatusCode),
        },
    };

    /// <summary>Takes the probes whose time has come, and answers subscription and new epoch of those that were to be had.</summary>
    /// <param name="circuits">
    /// Subscriptions, with the epochs that were seen, and how long a probe may take until somebody else may make another.
    /// </param>
    public static NpgsqlBatchCommand TakeProbes(IReadOnlyList<(Guid SubscriptionId, long Epoch, TimeSpan Patience)> circuits)
    {
        var command = new NpgsqlBatchCommand(
            """
            UPDATE circuits c SET epoch = DEFAULT, state = 'half_open', next_probe_at = clock_timestamp() + seen.patience
            FROM unnest(@ids, @epochs, @patience) AS seen (id, epoch, patience)
            WHERE c.subscription_id = seen.id AND c.epoch = seen.epoch AND c.next_probe_at <= clock_timestamp()
            RETURNING c.subscription_id, c.epoch
            """);
        command.Parameters.AddColumn("ids", NpgsqlDbType.Uuid, circuits, c => c.SubscriptionId);
        command.Parameters.AddColumn("epochs", NpgsqlDbType.Bigint, circuits, c => c.Epoch);
        command.Parameters.AddColumn("patience", NpgsqlDbType.Interval, circuits, c => c.Patience);
        return command;
    }

    /// <summary>A probe failed: the next one is made after a pause that doubles each time.</summary>
    /// <param name="subscriptionId">Whose.</param>
    /// <param name="epoch">Of the probe.</param>
    /// <param name="pause">The first pause.</param>
    /// <param name="longest">The longest.</param>
    /// <param name="outcome">How it ended.</param>
    /// <param name="statusCode">The HTTP status, when there was an answer.</param>
    public static NpgsqlBatchCommand Reopen(
        Guid subscriptionId, long epoch, TimeSpan pause, TimeSpan longest, AttemptOutcome outcome, int? statusCode) => new(
        $"""
        WITH reopened AS (
            UPDATE circuits SET epoch = DEFAULT, state = 'open', failed_probes = failed_probes + 1, last_outcome = @outcome,
                last_status_code = @code, next_probe_at = clock_timestamp() + least(@pause * 2 ^ least(failed_probes + 1, 20), @longest)
            WHERE subscription_id = @id AND epoch = @epoch
            RETURNING 1
        )
        SELECT 1, pg_notify('{Notifications.Subscriptions}', '') FROM reopened
        """)
        {
            Parameters =
        {
            new("id", subscriptionId), new("epoch", epoch), new("pause", pause), new("longest", longest), Outcome(outcome),
            Code(statusCode),
        },
        };

    /// <summary>A probe succeeded.</summary>
    /// <param name="subscriptionId">Whose.</param>
    /// <param name="epoch">Of the probe.</param>
    public static NpgsqlBatchCommand Close(Guid subscriptionId, long epoch) => new(
        $"""
        WITH closed AS (DELETE FROM circuits WHERE subscription_id = @id AND epoch = @epoch RETURNING 1)
        SELECT 1, pg_notify('{Notifications.Subscriptions}', '') FROM closed
        """)
    {
        Parameters = { new("id", subscriptionId), new("epoch", epoch) },
    };

    /// <summary>Somebody holds the deliveries of a subscription, until somebody lets them go.</summary>
    public static IEnumerable<NpgsqlBatchCommand> OpenByRequest(Guid tenantId, Guid subscriptionId)
    {
        yield return new NpgsqlBatchCommand(
            """
            INSERT INTO circuits (subscription_id, tenant_id, state, reason) VALUES (@id, @tenant, 'open', 'requested')
            ON CONFLICT (subscription_id) DO UPDATE SET epoch = DEFAULT, state = 'open', reason = 'requested',
                since = CASE WHEN circuits.reason = 'requested' THEN circuits.since ELSE clock_timestamp() END,
                failing_since = NULL, next_probe_at = NULL
            """)
        {
            Parameters = { new("id", subscriptionId), new("tenant", tenantId) },
        };
        yield return new NpgsqlBatchCommand(Notify);
    }

    /// <summary>Somebody lets them go; or the subscription has become another one, of which nothing is known.</summary>
    public static IEnumerable<NpgsqlBatchCommand> CloseByRequest(Guid tenantId, Guid subscriptionId)
    {
        yield return new NpgsqlBatchCommand("DELETE FROM circuits WHERE tenant_id = @tenant AND subscription_id = @id")
        {
            Parameters = { new("id", subscriptionId), new("tenant", tenantId) },
        };
        yield return new NpgsqlBatchCommand(Notify);
    }

    /// <summary>
    /// Disables the subscriptions of which every attempt has failed for too long, and answers tenant, subscription, address, and since
    /// when; their circuits go.
    /// </summary>
    /// <param name="after">How long is too long.</param>
    public static NpgsqlBatchCommand DisableFailing(TimeSpan after) => new(
        """
        WITH failing AS MATERIALIZED (
            SELECT c.subscription_id, c.failing_since FROM circuits c JOIN subscriptions s ON s.id = c.subscription_id
            WHERE c.failing_since <= clock_timestamp() - @after
            ORDER BY c.subscription_id LIMIT 100 FOR NO KEY UPDATE SKIP LOCKED
        ),
        disabled AS (
            UPDATE subscriptions s SET enabled = false, disabled_reason = 'failing', updated_at = now()
            FROM failing f WHERE s.id = f.subscription_id AND s.enabled AND s.deleted_at IS NULL
            RETURNING s.tenant_id, s.id, s.url, f.failing_since
        ),
        closed AS (DELETE FROM circuits c USING failing f WHERE c.subscription_id = f.subscription_id)
        SELECT * FROM disabled
        """)
    {
        Parameters = { new("after", after) },
    };

    private static NpgsqlParameter Outcome(AttemptOutcome outcome) =>
        new("outcome", NpgsqlDbType.Text) { Value = SnakeCase<AttemptOutcome>.Of(outcome) };

    private static NpgsqlParameter Code(int? statusCode) =>
        new("code", NpgsqlDbType.Integer) { Value = (object?)statusCode ?? DBNull.Value };
}
