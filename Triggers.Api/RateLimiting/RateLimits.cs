using System.ComponentModel.DataAnnotations;
using System.Threading.RateLimiting;
using Microsoft.Extensions.Options;
using Triggers.Api.Auth;

namespace Triggers.Api.RateLimiting;

/// <summary>Settings <c>RateLimiting:*</c>: what a key may do that has no limit of its own.</summary>
internal sealed class RateLimitingOptions
{
    /// <summary>Sustained requests a second.</summary>
    [Range(1, 1_000_000, ErrorMessage = "RateLimiting:RequestsPerSecond must be between 1 and 1000000.")]
    public int RequestsPerSecond { get; set; } = 1_000;

    /// <summary>How many requests may come at once.</summary>
    [Range(1, 1_000_000, ErrorMessage = "RateLimiting:Burst must be between 1 and 1000000.")]
    public int Burst { get; set; } = 2_000;
}

/// <summary>
/// A token bucket per key, in this process. The answer carries <c>RateLimit-Policy</c> and <c>RateLimit</c> as the IETF draft
/// (draft-ietf-httpapi-ratelimit-headers) has them.
/// </summary>
internal sealed class RateLimits(IOptions<RateLimitingOptions> options) : IDisposable
{
    public const string PolicyHeader = "RateLimit-Policy";
    public const string Header = "RateLimit";

    private readonly PartitionedRateLimiter<Bucket> _limiter = PartitionedRateLimiter.Create<Bucket, Bucket>(bucket =>
        RateLimitPartition.GetTokenBucketLimiter(bucket, static bucket => new TokenBucketRateLimiterOptions
        {
            TokenLimit = bucket.Burst,
            TokensPerPeriod = 1,
            ReplenishmentPeriod = TimeSpan.FromSeconds(1.0 / bucket.PerSecond),
            QueueLimit = 0,
        }));

    /// <summary>Takes one request from the key's bucket, and says in the headers how it stands.</summary>
    /// <returns>Whether there was one.</returns>
    public bool TryTake(Caller caller, IHeaderDictionary headers)
    {
        var perSecond = caller.RequestsPerSecond ?? options.Value.RequestsPerSecond;
        var bucket = new Bucket(caller.KeyId, perSecond, caller.Burst ?? Math.Max(options.Value.Burst, perSecond));
        using var lease = _limiter.AttemptAcquire(bucket);
        var left = (int)(_limiter.GetStatistics(bucket)?.CurrentAvailablePermits ?? 0);
        headers[PolicyHeader] = $"\"default\";q={bucket.Burst};w={CeilingDivide(bucket.Burst, bucket.PerSecond)}";
        headers[Header] = $"\"default\";r={left};t={CeilingDivide(bucket.Burst - left, bucket.PerSecond)}";
        if (lease.IsAcquired)
            return true;
        headers.RetryAfter = "1";
        return false;
    }

    public void Dispose() => _limiter.Dispose();

    private static int CeilingDivide(int value, int by) => (value + by - 1) / by;

    // A key whose limit was changed gets a new bucket; the old one is dropped when nobody asks for it any more.
    private readonly record struct Bucket(Guid KeyId, int PerSecond, int Burst);
}
