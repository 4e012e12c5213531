using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.EntityFrameworkCore.Migrations;

namespace Triggers.Core.Schema;

/// <summary>0001_initial.sql. The tables are partitioned and guarded by triggers, so they are written in SQL; EF runs them once.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0001_initial")]
public sealed class Initial : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0001_initial.sql"));
}

/// <summary>0002_kafka_log.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0002_kafka_log")]
public sealed class KafkaLog : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0002_kafka_log.sql"));
}

/// <summary>0003_usage_plans.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0003_usage_plans")]
public sealed class UsagePlans : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0003_usage_plans.sql"));
}

/// <summary>0004_retry_links.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0004_retry_links")]
public sealed class RetryLinks : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0004_retry_links.sql"));
}

/// <summary>0005_subscription_revisions.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0005_subscription_revisions")]
public sealed class SubscriptionRevisions : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0005_subscription_revisions.sql"));
}

/// <summary>0006_first_answers.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0006_first_answers")]
public sealed class FirstAnswers : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0006_first_answers.sql"));
}

/// <summary>0006_replay_jobs.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0006_replay_jobs")]
public sealed class ReplayJobs : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0006_replay_jobs.sql"));
}

/// <summary>0007_changed_subscriptions.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0007_changed_subscriptions")]
public sealed class ChangedSubscriptions : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0007_changed_subscriptions.sql"));
}

/// <summary>0008_tenant_plans.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0008_tenant_plans")]
public sealed class TenantPlans : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0008_tenant_plans.sql"));
}

/// <summary>0009_list_indexes.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0009_list_indexes")]
public sealed class ListIndexes : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0009_list_indexes.sql"));
}

/// <summary>0010_queue_and_history.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0010_queue_and_history")]
public sealed class QueueAndHistory : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0010_queue_and_history.sql"));
}

/// <summary>0011_fan_outs.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0011_fan_outs")]
public sealed class FanOutsInPortions : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0011_fan_outs.sql"));
}

/// <summary>0012_reservations.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0012_reservations")]
public sealed class Reservations : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0012_reservations.sql"));
}

/// <summary>0013_retry_policies.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0013_retry_policies")]
public sealed class RetryPolicies : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0013_retry_policies.sql"));
}

/// <summary>0014_circuits.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0014_circuits")]
public sealed class CircuitBreakers : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0014_circuits.sql"));
}

/// <summary>0015_inboxes.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0015_inboxes")]
public sealed class Inboxes : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0015_inboxes.sql"));
}

/// <summary>0016_large_data.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0016_large_data")]
public sealed class LargeData : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0016_large_data.sql"));
}

/// <summary>0017_receiver_credentials.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0017_receiver_credentials")]
public sealed class ReceiverCredentials : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0017_receiver_credentials.sql"));
}

/// <summary>0018_ordering.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0018_ordering")]
public sealed class OrderedDeliveries : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0018_ordering.sql"));
}

/// <summary>0021_subscription_limits.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0021_subscription_limits")]
public sealed class LimitsOfSubscriptions : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0021_subscription_limits.sql"));
}

/// <summary>0022_scheduling.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0022_scheduling")]
public sealed class Scheduling : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0022_scheduling.sql"));
}

/// <summary>0024_hooks.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0024_hooks")]
public sealed class Hooks : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0024_hooks.sql"));
}

/// <summary>0025_client_certificates.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0025_client_certificates")]
public sealed class ClientCertificates : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0025_client_certificates.sql"));
}

/// <summary>0026_receiver_certificates.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0026_receiver_certificates")]
public sealed class ReceiverCertificates : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0026_receiver_certificates.sql"));
}

/// <summary>0030_filters.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0030_filters")]
public sealed class Filters : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0030_filters.sql"));
}

/// <summary>0031_formats.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0031_formats")]
public sealed class Formats : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0031_formats.sql"));
}

/// <summary>0027_event_types.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0027_event_types")]
public sealed class EventTypes : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0027_event_types.sql"));
}

/// <summary>0028_event_attributes.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0028_event_attributes")]
public sealed class AttributesOfEvents : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0028_event_attributes.sql"));
}

/// <summary>0033_batches.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0033_batches")]
public sealed class Batches : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0033_batches.sql"));
}

/// <summary>0034_subscription_names.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0034_subscription_names")]
public sealed class SubscriptionNames : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0034_subscription_names.sql"));
}

/// <summary>0035_subscription_ends.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0035_subscription_ends")]
public sealed class EndsOfSubscriptions : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0035_subscription_ends.sql"));
}

/// <summary>0036_index_choice.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0036_index_choice")]
public sealed class IndexChoice : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0036_index_choice.sql"));
}

/// <summary>0037_late_version.sql.</summary>
[DbContext(typeof(TriggersDbContext))]
[Migration("0037_late_version")]
public sealed class LateVersion : Migration
{
    /// <inheritdoc />
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.Sql(Scripts.Read("0037_late_version.sql"));
}

file static class Scripts
{
    public static string Read(string name)
    {
        using var stream = typeof(Scripts).Assembly.GetManifestResourceStream(name)
            ?? throw new InvalidOperationException($"The script {name} is not in the assembly.");
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }
}

/// <summary>Brings a database to this version's schema, and tells whether it is there.</summary>
public static class SchemaVersion
{
    /// <summary>Creates the database if there is none and applies what is missing. Any number of processes may call it at once.</summary>
    public static async Task MigrateAsync(TriggersDbContext db, CancellationToken cancellationToken)
    {
        await db.Database.MigrateAsync(cancellationToken);
        await PartitionedIndexes.CompleteAsync((Npgsql.NpgsqlConnection)db.Database.GetDbConnection(), cancellationToken);
    }

    /// <summary>The changes this version knows that are not applied, in order.</summary>
    public static async Task<IReadOnlyCollection<string>> PendingAsync(TriggersDbContext db, CancellationToken cancellationToken) =>
        [.. await db.Database.GetPendingMigrationsAsync(cancellationToken)];

    /// <summary>Whether every change this version knows is applied. A newer schema is fine: changes are additive.</summary>
    public static async Task<bool> IsCurrentAsync(TriggersDbContext db, CancellationToken cancellationToken) =>
        (await PendingAsync(db, cancellationToken)).Count == 0;
}
