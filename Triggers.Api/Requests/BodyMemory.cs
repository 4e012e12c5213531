using System.ComponentModel.DataAnnotations;
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
/// what was announced: a body that is slow to come holds little.
/// </summary>
internal sealed class BodyMemory(IOptions<RequestOptions> options, ApiMetrics metrics)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<Guid, long> _byTenant = [];
    private long _total;

    /// <summary>Bytes held now.</summary>
    public long Total => Interlocked.Read(ref _total);

    /// <summary>A body of this tenant. It holds nothing yet, and everything it took until it is disposed of.</summary>
    public Share Open(Guid tenantId) => new(this, tenantId);

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
        }
    }
}
