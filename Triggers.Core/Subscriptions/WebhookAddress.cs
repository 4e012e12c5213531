using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace Triggers.Core.Subscriptions;

/// <summary>
/// The address of a subscription. The API reads it when it is given and the delivery service when it is sent to, so that what is
/// accepted can be sent. Path and query go out byte for byte as they were given.
/// </summary>
public static class WebhookAddress
{
    private const int MaxHostLength = 253;

    // Otherwise Uri writes paths anew (%7E becomes ~, /a/../b becomes /b), which breaks signatures in query strings.
    private static readonly UriCreationOptions AsGiven = new() { DangerousDisablePathAndQueryCanonicalization = true };

    /// <summary>Reads what a client calls an address.</summary>
    /// <param name="text">Any text.</param>
    /// <param name="address">What to store: the text, with an international host name as punycode.</param>
    /// <param name="problem">Why nothing could be sent there, as a sentence for the client.</param>
    public static bool TryNormalize(string text, [NotNullWhen(true)] out string? address, [NotNullWhen(false)] out string? problem)
    {
        address = null;
        problem = null;
        var start = AuthorityOf(text);
        if (start == 0)
        {
            problem = "Must be an absolute http or https address, as in https://example.com/hooks.";
            return false;
        }
        var authority = text[start..PathOf(text, start)];
        var rest = text[PathOf(text, start)..];
        if (authority.Contains('@'))
            problem = "Must not have a user name or password; an Authorization header can be given in headers.";
        else if (rest.Contains('#'))
            problem = "Must not have a fragment: it would not be sent.";
        else if (rest.Any(c => c is <= ' ' or > '~' or '\\'))
            problem = "Path and query must be printable ASCII; percent-encode everything else, spaces and backslashes too.";
        else if (ToAscii(authority) is not { } ascii || !TryParse(text[..start] + ascii + rest, out var uri) || !IsHost(uri))
            problem = "Must have a host name or IP address and a port from 1 to 65535. An international name must be in composed form, or punycode (xn--…).";
        else
            address = text[..start] + ascii + rest;
        return problem is null;
    }

    /// <summary>The address to connect and send to.</summary>
    /// <param name="address">As it is stored.</param>
    /// <exception cref="FormatException">It is not an http or https address.</exception>
    public static Uri Parse(string address) =>
        TryParse(address, out var uri) ? uri : throw new FormatException("The subscription's url is not an http or https address.");

    /// <summary>The same, and false where <see cref="Parse"/> throws.</summary>
    public static bool TryParse(string address, [NotNullWhen(true)] out Uri? uri)
    {
        uri = null;
        var start = AuthorityOf(address);
        if (start == 0)
            return false;
        // A request target begins with a slash, and a Uri kept as given does not add one.
        var path = PathOf(address, start);
        var withPath = path < address.Length && address[path] == '/' ? address : address.Insert(path, "/");
        return Uri.TryCreate(withPath, in AsGiven, out uri);
    }

    /// <summary>Where the host begins; 0 when this is no http or https address.</summary>
    private static int AuthorityOf(string address) =>
        address.StartsWith("https://", StringComparison.OrdinalIgnoreCase) ? "https://".Length
        : address.StartsWith("http://", StringComparison.OrdinalIgnoreCase) ? "http://".Length
        : 0;

    private static int PathOf(string address, int start) => address.AsSpan(start).IndexOfAny('/', '?', '#') is >= 0 and var at ? start + at : address.Length;

    private static bool IsHost(Uri uri) =>
        uri.HostNameType is UriHostNameType.Dns or UriHostNameType.IPv4 or UriHostNameType.IPv6
        && uri.IdnHost.Length <= MaxHostLength && !uri.IdnHost.Contains('%') && uri.Port is > 0 and <= ushort.MaxValue;

    /// <summary>Host and port with the host as punycode; null when it has none.</summary>
    private static string? ToAscii(string authority)
    {
        if (authority.All(char.IsAscii))
            return authority;
        var end = authority.LastIndexOf(':') is >= 0 and var colon ? colon : authority.Length;
        // Without ICU nothing is normalized. What would have to be is refused rather than sent to another name.
        if (authority.Any(c => c is >= '\u0300' and <= '\u036f' or >= '\uff00' and <= '\uffef'))
            return null;
        try
        {
            return new IdnMapping().GetAscii(authority[..end].ToLowerInvariant()) + authority[end..];
        }
        catch (ArgumentException)
        {
            return null;
        }
    }
}
