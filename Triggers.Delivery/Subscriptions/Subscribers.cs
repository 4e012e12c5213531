using System.Collections.Concurrent;
using System.Security.Cryptography;
using System.Text.Json;
using Microsoft.Extensions.Options;
using Npgsql;
using NpgsqlTypes;
using Triggers.Core;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Core.Transformations;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Subscriptions;

/// <summary>A subscription as delivery needs it. Immutable.</summary>
internal sealed record Subscriber(
    Guid Id, Guid TenantId, int Revision, string Url, string[] EventTypes, Dictionary<string, string> Headers,
    IReadOnlyList<SigningSecret> Secrets, bool Enabled, bool IsInbox = false)
{
    /// <summary>What the receiver knows its caller by, beside the signature; null: nothing.</summary>
    public ReceiverAuthentication? Authentication { get; init; }

    /// <summary>What the receiver knows its caller by in the TLS handshake; null: nothing.</summary>
    public CertificateOf? ClientCertificate { get; init; }

    /// <summary>Whether its secrets can't be decrypted, so that nothing can be sent.</summary>
    public bool IsUnreadable { get; init; }

    /// <summary>The timestamp at which it ends by itself; null: never.</summary>
    public long? EndsAt { get; init; }

    /// <summary>What it says of its retries; null: nothing.</summary>
    public RetryPolicy? Retry { get; init; }

    /// <summary>In which order it gets its deliveries.</summary>
    public Ordering Ordering { get; init; }

    /// <summary>What becomes of a key whose first delivery fails for good.</summary>
    public FailingHead FailingHead { get; init; }

    /// <summary>After how many failed attempts that is; null: at the end of its retries.</summary>
    public int? FailingHeadAttempts { get; init; }

    /// <summary>The key of what it gets of such a subject; null where it gets that in no order.</summary>
    public string? OrderKeyOf(string? subject) => Ordering switch
    {
        Ordering.Strict => "",
        Ordering.PerKey => subject,
        _ => null,
    };

    /// <summary>As what it is sent events.</summary>
    public MessageFormat Format { get; init; } = MessageFormat.Envelope;

    /// <summary>Which events of its types it wants; null: all.</summary>
    public SubscriptionFilter? Filter { get; init; }

    /// <summary>What it is sent at most; null: as much as there is.</summary>
    public SubscriptionLimits? Limits { get; init; }

    /// <summary>How it gets several events in one request; null: it gets each alone.</summary>
    public Batching? Batch { get; init; }

    /// <summary>The secrets that sign at that moment, newest first.</summary>
    public IEnumerable<string> SecretsAt(DateTimeOffset now) =>
        Secrets.Where(s => s.ExpiresAt is null || s.ExpiresAt > now).Select(s => s.Secret);
}

/// <summary>The client certificate of a subscription, see <see cref="ClientCertificate"/>.</summary>
/// <param name="SubscriptionId">Whose.</param>
/// <param name="Kept">As it is kept, decrypted.</param>
internal sealed record CertificateOf(Guid SubscriptionId, string Kept);

/// <summary>
/// Every subscription that has not ended, in memory. <c>subscriptions_version</c>, which the database bumps at every write, says
/// when to look again; <c>subscriptions.changed_by</c>, which ones to read.
/// </summary>
internal sealed partial class Subscribers(
    SecretProtector protector, IOptions<TransformationOptions> transformations, TimeProvider time, ILogger<Subscribers> logger)
{
    /// <summary>Longer than any process lives.</summary>
    private const double MaxSeconds = 1e9;

    private readonly SemaphoreSlim _reading = new(1);
    private readonly ConcurrentDictionary<Guid, Subscriber> _byId = new();
    private readonly ConcurrentDictionary<Guid, Subscriber[]> _enabledByTenant = new();
    private long _version;
    private ulong _seenBelow;

    /// <summary>How many rows were read, ever.</summary>
    public long RowsRead { get; private set; }

    /// <summary>The subscription, or null when it has ended, or is newer than what was read last.</summary>
    public Subscriber? Find(Guid id) => _byId.TryGetValue(id, out var subscriber) && !HasEnded(subscriber) ? subscriber : null;

    /// <summary>The enabled subscriptions of a tenant that want this type.</summary>
    public IEnumerable<Subscriber> Matching(Guid tenantId, string type) =>
        _enabledByTenant.GetValueOrDefault(tenantId, [])
            .Where(s => EventTypePattern.MatchesAny(s.EventTypes, type) && !HasEnded(s));

    /// <summary>The enabled subscriptions of a tenant that ask for this event of the system's own.</summary>
    public IEnumerable<Subscriber> MatchingOperational(Guid tenantId, string type) =>
        _enabledByTenant.GetValueOrDefault(tenantId, [])
            .Where(s => s.EventTypes.Any(p => EventTypePattern.MatchesOperational(p, type)) && !HasEnded(s));

    /// <summary>Reads what changed if <paramref name="version"/> is not the one that was read.</summary>
    public async Task RefreshAsync(NpgsqlConnection connection, long version, CancellationToken cancellationToken)
    {
        if (Interlocked.Read(ref _version) == version)
            return;
        await _reading.WaitAsync(cancellationToken);
        try
        {
            await ReadChangedAsync(connection, cancellationToken);
        }
        finally
        {
            _reading.Release();
        }
    }

    /// <summary>Reads the subscriptions if they changed.</summary>
    public async Task RefreshAsync(NpgsqlDataSource dataSource, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var command = new NpgsqlCommand("SELECT version FROM subscriptions_version", connection);
        await RefreshAsync(connection, (long)(await command.ExecuteScalarAsync(cancellationToken))!, cancellationToken);
    }

    private bool HasEnded(Subscriber subscriber) => subscriber.EndsAt is { } end && end <= time.GetTimestamp();

    /// <summary>
    /// What the last look could not see was written by a transaction that was running or not begun then. To look at some again harms
    /// nothing: a transaction that stays open makes the reading longer, not wrong.
    /// </summary>
    private async Task ReadChangedAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        // The version and the horizon come first: what is read after them is at least as new.
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                new("SELECT version, pg_snapshot_xmin(pg_current_snapshot()) FROM subscriptions_version"),
                new(
                    """
                    SELECT id, tenant_id, revision, url, event_types, headers::text, secrets::text, enabled, deleted_at IS NOT NULL,
                        retry::text, authentication, inbox IS NOT NULL,
                        extract(epoch FROM expires_at - clock_timestamp())::float8, rate_requests, rate_seconds, concurrency,
                        client_certificate, filter, ordering, failing_head, failing_head_attempts, format, batch_max,
                        batch_wait, transformation
                    FROM subscriptions WHERE changed_by >= $1 AND (deleted_at IS NULL OR $1 > '0'::xid8)
                    """)
                { Parameters = { new() { Value = _seenBelow, NpgsqlDbType = NpgsqlDbType.Xid8 } } },
            },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        var (version, seenBelow) = (reader.GetInt64(0), reader.GetFieldValue<ulong>(1));
        await reader.NextResultAsync(cancellationToken);
        var changed = new List<(Subscriber Subscriber, bool IsDeleted)>();
        while (await reader.ReadAsync(cancellationToken))
        {
            changed.Add((Read(reader), reader.GetBoolean(8)));
        }
        RowsRead += changed.Count;
        foreach (var tenant in changed.GroupBy(c => c.Subscriber.TenantId))
            Apply(tenant.Key, [.. tenant]);
        // Last, so that whoever finds its version here finds its subscriptions too.
        _seenBelow = seenBelow;
        Interlocked.Exchange(ref _version, version);
    }

    private Subscriber Read(NpgsqlDataReader reader)
    {
        var subscriber = new Subscriber(
            reader.GetGuid(0), reader.GetGuid(1), reader.GetInt32(2), reader.GetString(3), reader.GetFieldValue<string[]>(4), [], [],
            reader.GetBoolean(7), IsInbox: reader.GetBoolean(11))
        {
            EndsAt = reader.IsDBNull(12) ? null
                : time.GetTimestamp() + (long)(Math.Min(reader.GetDouble(12), MaxSeconds) * time.TimestampFrequency),
            Retry = reader.IsDBNull(9) ? null : JsonSerializer.Deserialize<RetryPolicy>(reader.GetString(9)),
            Ordering = SnakeCase<Ordering>.Parse(reader.GetString(18)),
            FailingHead = SnakeCase<FailingHead>.Parse(reader.GetString(19)),
            Format = MessageFormat.Of(SnakeCase<WebhookFormat>.Parse(reader.GetString(21))),
            FailingHeadAttempts = reader.IsDBNull(20) ? null : reader.GetInt32(20),
            Limits = SubscriptionLimits.Of(
                reader.GetFieldValue<int?>(13), reader.GetFieldValue<int?>(14), reader.GetFieldValue<int?>(15)),
            Batch = Batching.Of(reader.GetFieldValue<int?>(22), reader.GetFieldValue<TimeSpan?>(23)),
            Filter = reader.IsDBNull(17) ? null : SubscriptionFilter.Parse(reader.GetString(17)),
        };
        try
        {
            return subscriber with
            {
                Headers = JsonSerializer.Deserialize<Dictionary<string, string>>(reader.GetString(5))!
                    .ToDictionary(h => h.Key, h => protector.Unprotect(h.Value)),
                Secrets = JsonSerializer.Deserialize<List<SigningSecret>>(reader.GetString(6))!.ConvertAll(s => new SigningSecret
                {
                    Secret = protector.Unprotect(s.Secret),
                    PublicKey = s.PublicKey,
                    ExpiresAt = s.ExpiresAt,
                }),
                Authentication = reader.IsDBNull(10) ? null
                    : JsonSerializer.Deserialize<ReceiverAuthentication>(protector.Unprotect(reader.GetString(10))),
                Format = reader.IsDBNull(24) ? subscriber.Format
                    : new TransformationFormat(
                        subscriber.Id, JsonSerializer.Deserialize<Transformation>(protector.Unprotect(reader.GetString(24)))!,
                        transformations.Value),
                ClientCertificate = reader.IsDBNull(16) ? null : new(subscriber.Id, protector.Unprotect(reader.GetString(16))),
            };
        }
        catch (CryptographicException e)
        {
            Log.Unreadable(logger, TypeId.Format(TypeId.Subscription, subscriber.Id), e.Message);
            return subscriber with { IsUnreadable = true };
        }
    }

    private void Apply(Guid tenantId, List<(Subscriber Subscriber, bool IsDeleted)> changed)
    {
        foreach (var (subscriber, isDeleted) in changed)
        {
            if (isDeleted)
                _byId.TryRemove(subscriber.Id, out _);
            else
                _byId[subscriber.Id] = subscriber;
        }
        var other = changed.Select(c => c.Subscriber.Id).ToHashSet();
        Subscriber[] enabled =
        [
            .. _enabledByTenant.GetValueOrDefault(tenantId, []).Where(s => !other.Contains(s.Id)),
            .. changed.Where(c => c is { IsDeleted: false, Subscriber.Enabled: true }).Select(c => c.Subscriber),
        ];
        if (enabled.Length == 0)
            _enabledByTenant.TryRemove(tenantId, out _);
        else
            _enabledByTenant[tenantId] = enabled;
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Error,
            Message = "The secrets of {SubscriptionId} can't be decrypted, and nothing can be sent to it: {Problem}")]
        public static partial void Unreadable(ILogger logger, string subscriptionId, string problem);
    }
}
