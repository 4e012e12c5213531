using Microsoft.Extensions.Options;
using Triggers.Api.Errors;

namespace Triggers.Api.RateLimiting;

/// <summary>How many requests that wait for something may be under way at once, in this process.</summary>
/// <remarks>Counted here, since the framework's limiter by key wakes ten times a second.</remarks>
internal sealed class ConcurrencyLimits(IOptions<CapOptions> caps)
{
    private readonly Dictionary<Guid, int> _waiting = [], _tests = [];

    /// <summary>A request of the tenant begins to wait at the inbox; what is answered is its place, to be given back.</summary>
    /// <exception cref="ApiException"><c>too_many_concurrent</c></exception>
    public IDisposable Wait(Guid tenantId) => Take(_waiting, tenantId, caps.Value.WaitingRequestsPerTenant,
        $"{caps.Value.WaitingRequestsPerTenant} requests of this tenant wait at the inbox already.");

    /// <summary>A test of the subscription begins; what is answered is its place, to be given back.</summary>
    /// <exception cref="ApiException"><c>too_many_concurrent</c></exception>
    public IDisposable Test(Guid subscriptionId) => Take(_tests, subscriptionId, caps.Value.TestsPerSubscription,
        $"{caps.Value.TestsPerSubscription} tests of this subscription are under way already.");

    private static Place Take(Dictionary<Guid, int> taken, Guid id, int atOnce, string detail)
    {
        lock (taken)
        {
            var now = taken.GetValueOrDefault(id);
            if (now >= atOnce)
                throw new ApiException(ErrorCodes.TooManyConcurrent, detail) { RetryAfterSeconds = 1 };
            taken[id] = now + 1;
        }
        return new Place(taken, id);
    }

    private sealed class Place(Dictionary<Guid, int> taken, Guid id) : IDisposable
    {
        public void Dispose()
        {
            lock (taken)
            {
                if (--taken[id] == 0)
                    taken.Remove(id);
            }
        }
    }
}
