using System.Threading.RateLimiting;
using Microsoft.Extensions.Options;
using Triggers.Api.Errors;

namespace Triggers.Api.RateLimiting;

/// <summary>How many requests that wait for something may be under way at once, in this process.</summary>
internal sealed class ConcurrencyLimits(IOptions<CapOptions> caps) : IDisposable
{
    private readonly PartitionedRateLimiter<Guid> _waiting = Of(caps.Value.WaitingRequestsPerTenant);
    private readonly PartitionedRateLimiter<Guid> _tests = Of(caps.Value.TestsPerSubscription);

    /// <summary>A request of the tenant begins to wait at the inbox; the lease is its place.</summary>
    /// <exception cref="ApiException"><c>too_many_concurrent</c></exception>
    public RateLimitLease Wait(Guid tenantId) =>
        Take(_waiting, tenantId, $"{caps.Value.WaitingRequestsPerTenant} requests of this tenant wait at the inbox already.");

    /// <summary>A test of the subscription begins; the lease is its place.</summary>
    /// <exception cref="ApiException"><c>too_many_concurrent</c></exception>
    public RateLimitLease Test(Guid subscriptionId) =>
        Take(_tests, subscriptionId, $"{caps.Value.TestsPerSubscription} tests of this subscription are under way already.");

    public void Dispose()
    {
        _waiting.Dispose();
        _tests.Dispose();
    }

    private static RateLimitLease Take(PartitionedRateLimiter<Guid> limiter, Guid id, string detail)
    {
        var lease = limiter.AttemptAcquire(id);
        if (lease.IsAcquired)
            return lease;
        lease.Dispose();
        throw new ApiException(ErrorCodes.TooManyConcurrent, detail) { RetryAfterSeconds = 1 };
    }

    private static PartitionedRateLimiter<Guid> Of(int atOnce) => PartitionedRateLimiter.Create<Guid, Guid>(id =>
        RateLimitPartition.GetConcurrencyLimiter(id, _ => new ConcurrencyLimiterOptions { PermitLimit = atOnce, QueueLimit = 0 }));
}
