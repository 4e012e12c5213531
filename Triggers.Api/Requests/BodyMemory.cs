using System.ComponentModel.DataAnnotations;
using System.Threading.RateLimiting;
using Microsoft.Extensions.Options;
using Triggers.Api.Errors;
using Triggers.Api.Telemetry;

namespace Triggers.Api.Requests;

/// <summary>Settings <c>Requests:*</c>: what request bodies may take.</summary>
internal sealed class RequestOptions
{
    /// <summary>How long a client may take to send a body.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "01:00:00", ErrorMessage = "Requests:BodyTimeout must be between 1 second and 1 hour.")]
    public TimeSpan BodyTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>Bytes that the bodies of all requests under way may hold together in a process.</summary>
    [Range(8 << 20, long.MaxValue, ErrorMessage = "Requests:MaxBodyBytes must be at least 8388608.")]
    public long MaxBodyBytes { get; set; } = 256 << 20;

    /// <summary>The same for the requests of one tenant, whatever number of keys it has.</summary>
    [Range(8 << 20, long.MaxValue, ErrorMessage = "Requests:MaxBodyBytesPerTenant must be at least 8388608.")]
    public long MaxBodyBytesPerTenant { get; set; } = 64 << 20;
}

/// <summary>
/// Bounds what the bodies of requests under way hold in memory, in all and for each tenant. What is counted is what was received, not
/// what was announced: a body that is slow to come holds little. Of large ones a tenant has few at a time, and the others wait before they
/// are read: what is read faster than it can be appended would be refused, at everybody's cost.
/// </summary>
internal sealed class BodyMemory(IOptions<RequestOptions> options, ApiMetrics metrics) : IDisposable
{
    /// <summary>A body that takes more is large.</summary>
    public const int LargeBytes = 256 * 1024;

    /// <summary>What the large bodies of a tenant may be together, of all that its bodies may.</summary>
    private const int ShareOfLarge = 4;

    // A permit is a KiB.
    private readonly PartitionedRateLimiter<Guid> _large = PartitionedRateLimiter.Create<Guid, Guid>(tenantId =>
        RateLimitPartition.GetConcurrencyLimiter(tenantId, _ => new ConcurrencyLimiterOptions
        {
            PermitLimit = Kibibytes(options.Value.MaxBodyBytesPerTenant / ShareOfLarge),
            QueueLimit = Kibibytes(options.Value.MaxBodyBytesPerTenant),
        }));

    private readonly Lock _lock = new();
    private readonly Dictionary<Guid, long> _byTenant = [];
    private long _total;

    /// <summary>Bytes held now.</summary>
    public long Total => Interlocked.Read(ref _total);

    /// <summary>A body of this tenant. It holds nothing yet, and everything it took until it is disposed of.</summary>
    public Share Open(Guid tenantId) => new(this, tenantId);

    public void Dispose() => _large.Dispose();

    private static int Kibibytes(long bytes) => (int)Math.Min(bytes / 1024, int.MaxValue);

    private async Task<RateLimitLease> EnterAsync(Guid tenantId, int bytes, CancellationToken cancellationToken)
    {
        var lease = await _large.AcquireAsync(
            tenantId, Math.Min(Kibibytes(bytes), Kibibytes(options.Value.MaxBodyBytesPerTenant / ShareOfLarge)), cancellationToken);
        if (lease.IsAcquired)
            return lease;
        lease.Dispose();
        throw TooManyLarge();
    }

    private static ApiException TooManyLarge() =>
        new(ErrorCodes.TooManyBytes, "Too many large requests of this tenant are under way. Send fewer at once.") { RetryAfterSeconds = 1 };

    private void Take(Guid tenantId, long bytes)
    {
        lock (_lock)
        {
            var held = _byTenant.GetValueOrDefault(tenantId);
            if (held + bytes > options.Value.MaxBodyBytesPerTenant)
            {
                throw new ApiException(ErrorCodes.TooManyBytes,
                    $"The requests of this tenant that are under way hold {held >> 20} MiB. Send fewer at once, or smaller ones.")
                { RetryAfterSeconds = 1 };
            }
            if (_total + bytes > options.Value.MaxBodyBytes)
                throw new ApiException(ErrorCodes.Overloaded, "Too many requests are under way.") { RetryAfterSeconds = 1 };
            _byTenant[tenantId] = held + bytes;
            _total += bytes;
        }
        metrics.BodyBytesHeld(bytes);
    }

    private void GiveBack(Guid tenantId, long bytes)
    {
        lock (_lock)
        {
            _total -= bytes;
            if ((_byTenant[tenantId] -= bytes) == 0)
                _byTenant.Remove(tenantId);
        }
        metrics.BodyBytesHeld(-bytes);
    }

    /// <summary>What one body holds.</summary>
    internal sealed class Share(BodyMemory memory, Guid tenantId) : IDisposable
    {
        private long _bytes;
        private RateLimitLease? _large;

        /// <summary>Whether it may be large.</summary>
        public bool IsLarge => _large is not null;

        /// <summary>Waits until it may be large, at most so long.</summary>
        /// <param name="bytes">What it will be.</param>
        /// <param name="atMost">How long.</param>
        /// <param name="cancellationToken">Ends the waiting.</param>
        /// <exception cref="ApiException">The time is over, or too many wait.</exception>
        public async Task BeLargeAsync(int bytes, TimeSpan atMost, CancellationToken cancellationToken)
        {
            using var timeout = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            timeout.CancelAfter(atMost);
            try
            {
                _large = await memory.EnterAsync(tenantId, bytes, timeout.Token);
            }
            catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
            {
                throw TooManyLarge();
            }
        }

        /// <summary>Takes more.</summary>
        /// <exception cref="ApiException">There is no room, for this tenant or at all.</exception>
        public void Take(int bytes)
        {
            memory.Take(tenantId, bytes);
            _bytes += bytes;
        }

        public void Dispose()
        {
            if (_bytes > 0)
                memory.GiveBack(tenantId, _bytes);
            _bytes = 0;
            _large?.Dispose();
        }
    }
}
