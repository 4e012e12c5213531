using System.Net;
using System.Net.Sockets;
using System.Threading.RateLimiting;
using Microsoft.Extensions.Options;
using Triggers.Api.Errors;

namespace Triggers.Api.Auth;

/// <summary>How many unknown keys an address may send: each costs a query, and nobody who sends them has a limit of their own.</summary>
internal sealed class StrangerLimits(IOptions<AuthOptions> options) : IDisposable
{
    private const int BurstSeconds = 10;

    private readonly PartitionedRateLimiter<IPAddress> _limiter = PartitionedRateLimiter.Create<IPAddress, IPAddress>(address =>
        RateLimitPartition.GetTokenBucketLimiter(NetworkOf(address), _ => new TokenBucketRateLimiterOptions
        {
            TokenLimit = options.Value.UnknownKeysPerSecond * BurstSeconds,
            TokensPerPeriod = 1,
            ReplenishmentPeriod = TimeSpan.FromSeconds(1.0 / options.Value.UnknownKeysPerSecond),
            QueueLimit = 0,
        }));

    /// <summary>An address is about to ask for a key that this process doesn't know.</summary>
    /// <exception cref="ApiException"><c>rate_limited</c>: it has asked for too many that don't exist.</exception>
    public void EnsureMayAsk(IPAddress? address)
    {
        if (_limiter.GetStatistics(address ?? IPAddress.None)?.CurrentAvailablePermits is 0)
            throw new ApiException(ErrorCodes.RateLimited, "Too many unknown keys came from this address.") { RetryAfterSeconds = 1 };
    }

    /// <summary>It was unknown.</summary>
    public void Note(IPAddress? address) => _limiter.AttemptAcquire(address ?? IPAddress.None).Dispose();

    public void Dispose() => _limiter.Dispose();

    /// <summary>Whoever has an IPv6 address has 2^64 of them.</summary>
    private static IPAddress NetworkOf(IPAddress address)
    {
        if (address.IsIPv4MappedToIPv6)
            return address.MapToIPv4();
        if (address.AddressFamily != AddressFamily.InterNetworkV6)
            return address;
        Span<byte> bytes = stackalloc byte[16];
        address.TryWriteBytes(bytes, out _);
        bytes[8..].Clear();
        return new IPAddress(bytes);
    }
}
