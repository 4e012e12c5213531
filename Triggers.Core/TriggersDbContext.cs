using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Storage.ValueConversion;
using Triggers.Core.Tables;

namespace Triggers.Core;

/// <summary>The tables as EF Core sees them, for everything but the hot path. The schema itself is in Schema/*.sql.</summary>
public sealed class TriggersDbContext(DbContextOptions<TriggersDbContext> options) : DbContext(options)
{
    /// <summary>Whose data it is.</summary>
    public DbSet<Tenant> Tenants => Set<Tenant>();

    /// <summary>Credentials.</summary>
    public DbSet<ApiKey> ApiKeys => Set<ApiKey>();

    /// <summary>Limits with a name.</summary>
    public DbSet<UsagePlan> UsagePlans => Set<UsagePlan>();

    /// <summary>What events of a type look like.</summary>
    public DbSet<EventType> EventTypes => Set<EventType>();

    /// <summary>Their schemas.</summary>
    public DbSet<EventTypeVersion> EventTypeVersions => Set<EventTypeVersion>();

    /// <summary>Who wants what, deleted ones included.</summary>
    public DbSet<Subscription> Subscriptions => Set<Subscription>();

    /// <summary>Those that have not ended: neither deleted, nor is their time over by the database's clock.</summary>
    public IQueryable<Subscription> LivingSubscriptions =>
        Subscriptions.Where(s => s.DeletedAt == null && (s.ExpiresAt == null || s.ExpiresAt > Now()));

    /// <summary>Circuit breakers that are not closed. For reading.</summary>
    public DbSet<Circuit> Circuits => Set<Circuit>();

    /// <summary>Certificates of receivers that were tested. For reading.</summary>
    public DbSet<ReceiverCertificate> ReceiverCertificates => Set<ReceiverCertificate>();

    /// <summary>What was accepted.</summary>
    public DbSet<Event> Events => Set<Event>();

    /// <summary>What is on its way, and what became of the others. For reading.</summary>
    public DbSet<Delivery> Deliveries => Set<Delivery>();

    /// <summary>Every request made. For reading.</summary>
    public DbSet<Attempt> Attempts => Set<Attempt>();

    /// <summary>What failed for good.</summary>
    public DbSet<DeadLetter> DeadLetters => Set<DeadLetter>();

    /// <summary>Ranges of time that are delivered again.</summary>
    public DbSet<ReplayJob> ReplayJobs => Set<ReplayJob>();

    /// <summary>The database's clock, in queries only.</summary>
    [DbFunction("now", IsBuiltIn = true)]
    public static DateTimeOffset Now() => throw new NotSupportedException("It is the database's to say.");

    /// <inheritdoc />
    protected override void OnModelCreating(ModelBuilder modelBuilder)
    {
        modelBuilder.Entity<Tenant>(e => e.Property(x => x.CreatedAt).HasDefaultValueSql("now()"));
        modelBuilder.Entity<ApiKey>(e => e.Property(x => x.CreatedAt).HasDefaultValueSql("now()"));
        modelBuilder.Entity<UsagePlan>(e => e.Property(x => x.CreatedAt).HasDefaultValueSql("now()"));
        modelBuilder.Entity<EventType>(e =>
        {
            e.HasKey(x => new { x.TenantId, x.Name });
            e.Property(x => x.CreatedAt).HasDefaultValueSql("now()");
            e.Property(x => x.UpdatedAt).HasDefaultValueSql("now()");
        });
        modelBuilder.Entity<EventTypeVersion>(e =>
        {
            e.HasKey(x => new { x.EventTypeId, x.Version });
            e.HasOne<EventType>().WithMany().HasForeignKey(x => x.EventTypeId).HasPrincipalKey(x => x.Id);
            e.Property(x => x.CreatedAt).HasDefaultValueSql("now()");
        });
        modelBuilder.Entity<Subscription>(e =>
        {
            e.Property(x => x.Headers).HasColumnType("jsonb");
            e.Property(x => x.Secrets).HasColumnType("jsonb");
            e.Property(x => x.Retry).HasColumnType("jsonb");
            e.Property(x => x.CreatedAt).HasDefaultValueSql("now()");
            e.Property(x => x.UpdatedAt).HasDefaultValueSql("now()");
        });
        modelBuilder.Entity<Circuit>(e =>
        {
            e.HasKey(x => x.SubscriptionId);
            e.HasOne<Subscription>().WithOne(x => x.Circuit).HasForeignKey<Circuit>(x => x.SubscriptionId);
        });
        modelBuilder.Entity<ReceiverCertificate>(e => e.HasKey(x => x.SubscriptionId));
        modelBuilder.Entity<Event>(e => e.HasKey(x => new { x.TenantId, x.Id }));
        modelBuilder.Entity<Delivery>(e => e.ToView("all_deliveries").HasKey(x => new { x.TenantId, x.Id }));
        modelBuilder.Entity<Attempt>(e =>
        {
            e.ToView("all_attempts").HasKey(x => new { x.DeliveryId, x.Claim });
            e.Property(x => x.ResponseHeaders).HasColumnType("jsonb");
        });
        modelBuilder.Entity<ReplayJob>(e => e.HasKey(x => new { x.TenantId, x.Id }));
        modelBuilder.Entity<DeadLetter>(e => e.HasKey(x => new { x.TenantId, x.DeliveryId }));
    }

    /// <inheritdoc />
    protected override void ConfigureConventions(ModelConfigurationBuilder configurationBuilder)
    {
        configurationBuilder.Properties<DeliveryStatus>().HaveConversion<SnakeCaseConverter<DeliveryStatus>>();
        configurationBuilder.Properties<CircuitState>().HaveConversion<SnakeCaseConverter<CircuitState>>();
        configurationBuilder.Properties<CircuitReason>().HaveConversion<SnakeCaseConverter<CircuitReason>>();
        configurationBuilder.Properties<AttemptOutcome>().HaveConversion<SnakeCaseConverter<AttemptOutcome>>();
        configurationBuilder.Properties<ReplayJobStatus>().HaveConversion<SnakeCaseConverter<ReplayJobStatus>>();
        configurationBuilder.Properties<ReplayInclude>().HaveConversion<SnakeCaseConverter<ReplayInclude>>();
        configurationBuilder.Properties<Ordering>().HaveConversion<SnakeCaseConverter<Ordering>>();
        configurationBuilder.Properties<WebhookFormat>().HaveConversion<SnakeCaseConverter<WebhookFormat>>();
        configurationBuilder.Properties<FailingHead>().HaveConversion<SnakeCaseConverter<FailingHead>>();
        configurationBuilder.Properties<ContractMode>().HaveConversion<SnakeCaseConverter<ContractMode>>();
        configurationBuilder.Properties<SchemaCompatibility>().HaveConversion<SnakeCaseConverter<SchemaCompatibility>>();
        configurationBuilder.Properties<UnknownEventTypes>().HaveConversion<SnakeCaseConverter<UnknownEventTypes>>();
        configurationBuilder.Properties<DeadLetterState>().HaveConversion<SnakeCaseConverter<DeadLetterState>>();
    }

    private sealed class SnakeCaseConverter<T>() : ValueConverter<T, string>(
        value => SnakeCase<T>.Of(value), text => SnakeCase<T>.Parse(text))
        where T : struct, Enum;
}
