using System.Buffers.Binary;
using System.Security.Cryptography;

namespace Triggers.Core;

/// <summary>
/// Public identifiers: a prefix, an underscore and a UUIDv7 as 26 characters of Crockford's base 32 (the TypeID specification),
/// as in <c>evt_01jc8y0vvefx9a1cyq4gz2m3nn</c>. Postgres stores the uuid alone.
/// </summary>
public static class TypeId
{
    /// <summary>Prefix of events.</summary>
    public const string Event = "evt";

    /// <summary>Prefix of subscriptions.</summary>
    public const string Subscription = "sub";

    /// <summary>Prefix of deliveries, and of dead letters, which are named by their delivery.</summary>
    public const string Delivery = "dlv";

    /// <summary>Prefix of attempts.</summary>
    public const string Attempt = "att";

    /// <summary>Prefix of API keys (the resource, not the secret).</summary>
    public const string ApiKey = "key";

    /// <summary>Prefix of tenants.</summary>
    public const string Tenant = "ten";

    /// <summary>Prefix of usage plans.</summary>
    public const string UsagePlan = "pln";

    /// <summary>Prefix of event types.</summary>
    public const string EventType = "typ";

    /// <summary>Prefix of replay jobs.</summary>
    public const string Replay = "rpl";

    /// <summary>Prefix of requests with several events.</summary>
    public const string Batch = "bat";

    private const string Alphabet = "0123456789abcdefghjkmnpqrstvwxyz";
    private const int SuffixLength = 26;

    private static long s_newest;

    /// <summary>A new UUIDv7, greater than any this process made before.</summary>
    public static Guid NewGuid() => NewGuid(TimeProvider.System.GetUtcNow(), ref s_newest);

    /// <summary>
    /// Time to 4096ths of a millisecond, then chance (RFC 9562, section 6.2, method 3). When the clock has gone back, or more are made
    /// than there are 4096ths, each is the one after the newest until the clock has caught up with that: ids never run ahead of it by more.
    /// </summary>
    /// <param name="now">The clock.</param>
    /// <param name="newest">The time in the newest id: milliseconds since 1970, times 4096.</param>
    internal static Guid NewGuid(DateTimeOffset now, ref long newest)
    {
        var time = (now.ToUnixTimeMilliseconds() << 12) + (now.Ticks % TimeSpan.TicksPerMillisecond * 4096 / TimeSpan.TicksPerMillisecond);
        long before, next;
        do
        {
            before = Volatile.Read(ref newest);
            next = Math.Max(time, before + 1);
        }
        while (Interlocked.CompareExchange(ref newest, next, before) != before);

        Span<byte> chance = stackalloc byte[8];
        RandomNumberGenerator.Fill(chance);
        var (version, variant) = (7UL << 12, 0b10UL << 62);
        return FromNumber(new UInt128(
            (ulong)(next >> 12) << 16 | version | (ulong)next & 0xfff, variant | BinaryPrimitives.ReadUInt64BigEndian(chance) >> 2));
    }

    /// <summary>The id as text, as in <c>evt_01jc8y0vvefx9a1cyq4gz2m3nn</c>.</summary>
    public static string Format(string prefix, Guid id) =>
        string.Create(prefix.Length + 1 + SuffixLength, (prefix, id), static (span, state) =>
        {
            state.prefix.CopyTo(span);
            span[state.prefix.Length] = '_';
            var value = ToNumber(state.id);
            for (var i = span.Length - 1; i > state.prefix.Length; i--)
            {
                span[i] = Alphabet[(int)(value & 31)];
                value >>= 5;
            }
        });

    /// <summary>What ids with a prefix look like, as a regular expression.</summary>
    public static string Pattern(string prefix) => $"^{prefix}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$";

    /// <summary>Reads an id with exactly this prefix; false for anything else.</summary>
    public static bool TryParse(string prefix, string? text, out Guid id)
    {
        id = Guid.Empty;
        if (text is null || text.Length != prefix.Length + 1 + SuffixLength || text[prefix.Length] != '_'
            || !text.StartsWith(prefix, StringComparison.Ordinal))
            return false;

        // 26 characters hold 130 bits: the first one may only carry three.
        if (text[prefix.Length + 1] > '7')
            return false;

        UInt128 value = 0;
        foreach (var c in text.AsSpan(prefix.Length + 1))
        {
            var digit = Alphabet.IndexOf(c);
            if (digit < 0)
                return false;
            value = (value << 5) | (uint)digit;
        }

        id = FromNumber(value);
        return true;
    }

    /// <summary>When a UUIDv7 was made, in whole milliseconds UTC.</summary>
    public static DateTimeOffset CreatedAt(Guid id) => DateTimeOffset.FromUnixTimeMilliseconds((long)(ToNumber(id) >> 80));

    /// <summary>The smallest UUIDv7 of a moment: ids made at or after it are greater or equal.</summary>
    public static Guid At(DateTimeOffset moment) => FromNumber((UInt128)(ulong)Math.Max(0, moment.ToUnixTimeMilliseconds()) << 80);

    /// <summary>
    /// The id <paramref name="offset"/> places after <paramref name="id"/>: the items of a batch are numbered from its first.
    /// </summary>
    public static Guid Add(Guid id, int offset) => FromNumber(ToNumber(id) + (UInt128)offset);

    /// <summary>How many places <paramref name="id"/> is after <paramref name="first"/>.</summary>
    public static int Difference(Guid id, Guid first) => (int)(ToNumber(id) - ToNumber(first));

    private static UInt128 ToNumber(Guid id)
    {
        Span<byte> bytes = stackalloc byte[16];
        id.TryWriteBytes(bytes, bigEndian: true, out _);
        return BinaryPrimitives.ReadUInt128BigEndian(bytes);
    }

    private static Guid FromNumber(UInt128 value)
    {
        Span<byte> bytes = stackalloc byte[16];
        BinaryPrimitives.WriteUInt128BigEndian(bytes, value);
        return new Guid(bytes, bigEndian: true);
    }
}
