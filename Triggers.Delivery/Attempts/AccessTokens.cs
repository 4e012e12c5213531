using System.Collections.Concurrent;
using System.Globalization;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Delivery.Subscriptions;

namespace Triggers.Delivery.Attempts;

/// <summary>No token came. The message is for the subscription's owner.</summary>
internal sealed class NoTokenException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>
/// Tokens that OAuth 2.0 servers give for the credentials of subscriptions (RFC 6749, 4.4). They are asked for by the client that webhooks
/// go out by, so by the same guard, and within the time of the attempt that needs one; kept in memory until shortly before they expire.
/// </summary>
internal sealed class AccessTokens(IHttpClientFactory clients, AddressGuard guard, TimeProvider time)
{
    private const int MaxAnswerBytes = 64 * 1024;
    private static readonly TimeSpan s_lifeUnlessSaid = TimeSpan.FromMinutes(5);
    private static readonly TimeSpan s_longestLife = TimeSpan.FromHours(1);
    private static readonly TimeSpan s_margin = TimeSpan.FromSeconds(10);

    private readonly ConcurrentDictionary<Guid, Entry> _entries = new();

    private sealed record Token(string Text, DateTimeOffset Until);

    /// <summary>Of one subscription, as it was in one revision.</summary>
    private sealed class Entry(int revision)
    {
        public int Revision { get; } = revision;

        public SemaphoreSlim Asking { get; } = new(1);

        public Token? Token { get; set; }
    }

    /// <summary>A token that is valid, as far as is known.</summary>
    /// <param name="subscriber">Whose credentials are <see cref="AuthenticationType.ClientCredentials"/>.</param>
    /// <param name="refused">The one that the receiver has just refused; null for none.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="NoTokenException">The server gave none.</exception>
    public async Task<string> GetAsync(Subscriber subscriber, string? refused, CancellationToken cancellationToken)
    {
        var entry = _entries.AddOrUpdate(
            subscriber.Id, _ => new Entry(subscriber.Revision),
            (_, known) => known.Revision == subscriber.Revision ? known : new Entry(subscriber.Revision));
        if (IsGood(entry.Token, refused))
            return entry.Token!.Text;
        // One asks, and the others have its answer.
        await entry.Asking.WaitAsync(cancellationToken);
        try
        {
            if (!IsGood(entry.Token, refused))
                entry.Token = await AskAsync(subscriber.Authentication!, cancellationToken);
            return entry.Token!.Text;
        }
        finally
        {
            entry.Asking.Release();
        }
    }

    private bool IsGood(Token? token, string? refused) => token is not null && token.Text != refused && token.Until > time.GetUtcNow();

    private async Task<Token> AskAsync(ReceiverAuthentication authentication, CancellationToken cancellationToken)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, WebhookAddress.Parse(authentication.TokenUrl!));
        request.Options.Set(WebhookSender.TimeLimit, Timeout.InfiniteTimeSpan);
        var form = new Dictionary<string, string> { ["grant_type"] = "client_credentials" };
        if (authentication.Scope is { } scope)
            form["scope"] = scope;
        request.Content = new FormUrlEncodedContent(form);
        request.Headers.Accept.Add(new("application/json"));
        request.Headers.Authorization = new AuthenticationHeaderValue("Basic", Convert.ToBase64String(Encoding.UTF8.GetBytes(
            $"{Uri.EscapeDataString(authentication.ClientId!)}:{Uri.EscapeDataString(authentication.ClientSecret!)}")));

        var exchange = Exchange.Begin();
        var started = time.GetTimestamp();
        try
        {
            guard.CheckBeforeProxy(request.RequestUri!);
            using var response = await clients.CreateClient(WebhookSender.ClientName)
                .SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellationToken);
            if (!response.IsSuccessStatusCode)
                throw new NoTokenException($"the token server answered {(int)response.StatusCode}");
            return Read(await ReadAsync(response, cancellationToken));
        }
        catch (Exception e) when (e is not (NoTokenException or OperationCanceledException))
        {
            throw new NoTokenException($"no token: {Failure.Of(e, exchange, time.GetElapsedTime(started)).Cause}", e);
        }
    }

    private static async Task<ReadOnlyMemory<byte>> ReadAsync(HttpResponseMessage response, CancellationToken cancellationToken)
    {
        var buffer = new byte[MaxAnswerBytes];
        var length = 0;
        await using var stream = await response.Content.ReadAsStreamAsync(cancellationToken);
        while (length < buffer.Length && await stream.ReadAsync(buffer.AsMemory(length), cancellationToken) is > 0 and var read)
            length += read;
        return buffer.AsMemory(0, length);
    }

    private Token Read(ReadOnlyMemory<byte> answer)
    {
        try
        {
            using var document = JsonDocument.Parse(answer);
            if (document.RootElement.TryGetProperty("access_token", out var token) && token.GetString() is { Length: > 0 } text
                && WebhookHeaders.IsValue(text))
                return new Token(text, time.GetUtcNow() + LifeOf(document.RootElement) - s_margin);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            // Said below.
        }
        throw new NoTokenException("the token server answered without a token");
    }

    /// <summary>By <c>expires_in</c>, which is a number (RFC 6749, 5.1) that some servers write as a string.</summary>
    private static TimeSpan LifeOf(JsonElement answer)
    {
        if (!answer.TryGetProperty("expires_in", out var given))
            return s_lifeUnlessSaid;
        var seconds = double.NaN;
        var isSaid = given.ValueKind switch
        {
            JsonValueKind.Number => given.TryGetDouble(out seconds),
            JsonValueKind.String => double.TryParse(given.GetString(), NumberStyles.Float, CultureInfo.InvariantCulture, out seconds),
            _ => false,
        };
        return isSaid && !double.IsNaN(seconds) ? TimeSpan.FromSeconds(Math.Clamp(seconds, 0, s_longestLife.TotalSeconds))
            : s_lifeUnlessSaid;
    }
}
