using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Options;
using Triggers.Api.Errors;

namespace Triggers.Api.Auth;

/// <summary>How many unknown keys an address may send: each costs a query, and nobody who sends them has a limit of their own.</summary>
/// <remarks>
/// Token buckets, each kept as the moment at which it is full. The framework's limiter by address wakes ten times a second.
/// </remarks>
internal sealed class StrangerLimits(IOptions<AuthOptions> options, TimeProvider time)
{
    private const int BurstSeconds = 10;
    private const int MaxNetworks = 100_000;

    /// <summary>
    /// How many are looked for at once, from all addresses. A key counts only when it turns out to be none, so that good keys never stand
    /// in each other's way; so an address may go beyond its limit by fewer than this, and pays for that later.
    /// </summary>
    private const int Places = 16;

    private readonly ConcurrentDictionary<IPAddress, long> _fullAt = new();
    private readonly SemaphoreSlim _places = new(Places);

    /// <summary>An address is about to ask for a key that this process doesn't know.</summary>
    /// <exception cref="ApiException"><c>rate_limited</c>: it has asked for too many that don't exist.</exception>
    public void EnsureMayAsk(IPAddress? address)
    {
        if (_fullAt.TryGetValue(NetworkOf(address), out var at) && at - time.GetTimestamp() > Empty - PerToken)
            throw new ApiException(ErrorCodes.RateLimited, "Too many unknown keys came from this address.") { RetryAfterSeconds = 1 };
    }

    /// <summary>Looks for what an address asks for, and counts it if there is no such thing.</summary>
    /// <param name="address">Who asks.</param>
    /// <param name="find">Answers null when there is no such thing.</param>
    /// <param name="cancellationToken">Ends the waiting for a place.</param>
    /// <exception cref="ApiException"><c>rate_limited</c>: it has asked for too many that don't exist.</exception>
    public async Task<T?> FindAsync<T>(IPAddress? address, Func<Task<T?>> find, CancellationToken cancellationToken) where T : class
    {
        EnsureMayAsk(address);
        await _places.WaitAsync(cancellationToken);
        try
        {
            // Those before it may have been too many.
            EnsureMayAsk(address);
            var found = await find();
            if (found is null)
                Note(address);
            return found;
        }
        finally
        {
            _places.Release();
        }
    }

    private void Note(IPAddress? address)
    {
        var now = time.GetTimestamp();
        if (_fullAt.Count >= MaxNetworks)
        {
            foreach (var full in _fullAt.Where(network => network.Value <= now))
                _fullAt.TryRemove(full);
        }
        _fullAt.AddOrUpdate(NetworkOf(address), _ => now + PerToken, (_, at) => Math.Max(now, at) + PerToken);
    }

    // How long an empty bucket takes to be full.
    private long Empty => BurstSeconds * time.TimestampFrequency;

    private long PerToken => time.TimestampFrequency / options.Value.UnknownKeysPerSecond;

    /// <summary>Whoever has an IPv6 address has 2^64 of them.</summary>
    private static IPAddress NetworkOf(IPAddress? address)
    {
        if (address is null)
            return IPAddress.None;
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
