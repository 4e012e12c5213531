using System.Buffers;
using System.Net.Http.Headers;
using System.Text.Json;
using System.Text.Unicode;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Options;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Core;

namespace Triggers.Api.Requests;

/// <summary>Reads request bodies, whole and bounded.</summary>
internal static class Body
{
    /// <summary>What bodies are.</summary>
    public const string MediaType = "application/json";

    /// <summary>What bodies of PATCH are, too.</summary>
    public const string PatchMediaType = "application/merge-patch+json";

    /// <summary>The deepest nesting of a body.</summary>
    public const int MaxDepth = 64;

    /// <summary>The largest body, unless an endpoint says otherwise.</summary>
    public const int MaxBytes = 1024 * 1024;

    private const int FirstBuffer = 16 * 1024;

    /// <summary>
    /// The body's bytes: plain, UTF-8, <c>application/json</c> (a PATCH also <c>application/merge-patch+json</c>), at most
    /// <paramref name="maxBytes"/>. A byte order mark at its beginning is left out.
    /// </summary>
    public static Task<ReadOnlyMemory<byte>> ReadBytesAsync(HttpContext context, int maxBytes) =>
        HttpMethods.IsPatch(context.Request.Method) ? ReadTextAsync(context, maxBytes, MediaType, PatchMediaType)
            : ReadTextAsync(context, maxBytes, MediaType);

    /// <summary>The same with other media types.</summary>
    public static async Task<ReadOnlyMemory<byte>> ReadTextAsync(HttpContext context, int maxBytes, params string[] mediaTypes)
    {
        if (!IsOneOf(context.Request.ContentType, mediaTypes))
        {
            throw new ApiException(
                ErrorCodes.UnsupportedMediaType, $"Content-Type must be {string.Join(" or ", mediaTypes)}, in UTF-8.");
        }
        var body = await ReadAnyAsync(context, maxBytes, isText: true);
        return body.Span.StartsWith("\uFEFF"u8) ? body[3..] : body;
    }

    /// <summary>The body's bytes, whatever they are.</summary>
    public static async Task<ReadOnlyMemory<byte>> ReadAnyAsync(HttpContext context, int maxBytes, bool isText = false)
    {
        var request = context.Request;
        if (request.Headers.ContentEncoding is [not (null or "" or "identity"), ..])
            throw new ApiException(ErrorCodes.UnsupportedMediaType, "Content-Encoding is not supported: send the body as it is.");
        if (request.ContentLength > maxBytes)
            throw TooLarge(maxBytes);
        // What the server itself would refuse later, with chunks: one byte more than we take, so that we are the ones to say it.
        if (context.Features.Get<IHttpMaxRequestBodySizeFeature>() is { IsReadOnly: false } limit)
            limit.MaxRequestBodySize = maxBytes + 64 * 1024;

        // Until the request has its answer: what is read of a body goes on to the event log as it is.
        var share = context.RequestServices.GetRequiredService<BodyMemory>().Open(context.Features.GetRequiredFeature<Caller>().TenantId);
        context.Response.RegisterForDispose(share);
        var deadline = Deadline.Of(context);
        deadline.Pause();
        try
        {
            var body = await ReadInTimeAsync(context, maxBytes, share);
            deadline.Resume();
            return !isText || Utf8.IsValid(body.Span) ? body
                : throw new ApiException(ErrorCodes.MalformedJson, "The body is not valid UTF-8.");
        }
        catch (ApiException)
        {
            // The rest of the body is not waited for. Said when the answer starts, since an error takes all headers away.
            var headers = context.Response.Headers;
            context.Response.OnStarting(() =>
            {
                headers.Connection = "close";
                return Task.CompletedTask;
            });
            throw;
        }
    }

    private static async Task<ReadOnlyMemory<byte>> ReadInTimeAsync(HttpContext context, int maxBytes, BodyMemory.Share share)
    {
        var atMost = context.RequestServices.GetRequiredService<IOptions<RequestOptions>>().Value.BodyTimeout;
        using var timeout = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted);
        timeout.CancelAfter(atMost);
        try
        {
            return await ReadAsync(context, maxBytes, share, timeout.Token);
        }
        catch (OperationCanceledException) when (!context.RequestAborted.IsCancellationRequested)
        {
            throw new ApiException(ErrorCodes.RequestTimeout, $"The body was not there after {atMost.TotalSeconds:0} s.");
        }
        catch (IOException e) when (
            e is not (BadHttpRequestException or ConnectionResetException) && !context.RequestAborted.IsCancellationRequested)
        {
            // A chunk whose size is larger than any number; the server has no status for it.
            throw new ApiException(ErrorCodes.InvalidRequest, "The chunks of the body can't be read.");
        }
    }

    /// <summary>
    /// The buffer grows with what comes, whatever length was announced, until it is let in as a large one; what is read leaves the
    /// server's own buffer at once.
    /// </summary>
    private static async Task<ReadOnlyMemory<byte>> ReadAsync(
        HttpContext context, int maxBytes, BodyMemory.Share share, CancellationToken cancellationToken)
    {
        var request = context.Request;
        var expected = (int)(request.ContentLength ?? maxBytes);
        var body = Array.Empty<byte>();
        var length = 0;
        while (true)
        {
            var read = await request.BodyReader.ReadAsync(cancellationToken);
            var needed = length + read.Buffer.Length;
            if (needed > maxBytes)
                throw TooLarge(maxBytes);
            if (needed > body.Length)
            {
                if (needed > BodyMemory.LargeBytes && !share.IsLarge)
                {
                    // It is we who keep the client waiting.
                    Deadline.Of(context).Resume();
                    await share.BeLargeAsync(expected, RequestBudget.LargeBody, cancellationToken);
                    Deadline.Of(context).Pause();
                }
                var size = share.IsLarge && request.ContentLength is not null ? expected
                    : (int)Math.Max(needed, Math.Min(expected, Math.Max(FirstBuffer, body.Length * 2L)));
                share.Take(size - body.Length);
                Array.Resize(ref body, size);
            }
            read.Buffer.CopyTo(body.AsSpan(length));
            length = (int)needed;
            request.BodyReader.AdvanceTo(read.Buffer.End);
            if (read.IsCompleted)
                return body.AsMemory(0, length);
        }
    }

    // A parameter may be empty, as in "application/json;" (RFC 9110, 5.6.6); the parser wants none of these.
    private static bool IsOneOf(string? contentType, string[] mediaTypes) =>
        MediaTypeHeaderValue.TryParse(
            string.Join(';', (contentType ?? "").Split(';').Where(part => !string.IsNullOrWhiteSpace(part))), out var type)
        && Array.Exists(mediaTypes, mediaType => Is(type.MediaType, mediaType))
        && (type.CharSet?.Trim('"') is not { } charset || Is(charset, "utf-8") || Is(charset, "utf8"));

    private static bool Is(string? text, string other) => string.Equals(text, other, StringComparison.OrdinalIgnoreCase);

    private static ApiException TooLarge(int maxBytes) =>
        new(ErrorCodes.PayloadTooLarge, $"At most {maxBytes / 1024} KiB are taken in one request.");

    /// <summary>Reads a body that is one JSON object; every mistake in it is answered at once.</summary>
    public static async Task<T> ReadAsync<T>(HttpContext context, Func<Fields, T> read) =>
        Parse(await ReadBytesAsync(context, MaxBytes), read);

    /// <summary>The same for a body whose bytes were read before.</summary>
    public static T Parse<T>(ReadOnlyMemory<byte> bytes, Func<Fields, T> read)
    {
        JsonDocument document;
        try
        {
            document = JsonDocument.Parse(bytes, new JsonDocumentOptions { MaxDepth = MaxDepth });
        }
        catch (JsonException e)
        {
            throw Malformed(e);
        }
        using (document)
            return Fields.Read(document.RootElement, read);
    }

    /// <summary>The same for a body that may be left out.</summary>
    public static async Task<T?> ReadOptionalAsync<T>(HttpContext context, Func<Fields, T> read) where T : class =>
        context.Features.Get<IHttpRequestBodyDetectionFeature>() is { CanHaveBody: false } ? null : await ReadAsync(context, read);

    /// <summary>The answer to bytes that are no JSON.</summary>
    public static ApiException Malformed(JsonException e) =>
        new(ErrorCodes.MalformedJson,
            $"The body is not JSON, or nested too deeply: line {e.LineNumber + 1}, byte {e.BytePositionInLine + 1}.");
}
