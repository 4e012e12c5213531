using System.Buffers;
using System.Net.Http.Headers;
using System.Text.Json;
using System.Text.Unicode;
using Microsoft.AspNetCore.Http.Features;
using Triggers.Api.Errors;

namespace Triggers.Api.Requests;

/// <summary>Reads request bodies, whole and bounded.</summary>
internal static class Body
{
    /// <summary>The deepest nesting of a body.</summary>
    public const int MaxDepth = 64;

    /// <summary>The largest body, unless an endpoint says otherwise.</summary>
    public const int MaxBytes = 1024 * 1024;

    /// <summary>The body's bytes: plain, UTF-8, <c>application/json</c>, at most <paramref name="maxBytes"/>.</summary>
    public static async Task<ReadOnlyMemory<byte>> ReadBytesAsync(HttpContext context, int maxBytes)
    {
        var request = context.Request;
        if (!MediaTypeHeaderValue.TryParse(request.ContentType, out var type)
            || !string.Equals(type.MediaType, "application/json", StringComparison.OrdinalIgnoreCase)
            || type.CharSet is { } charset && !charset.Trim('"').Equals("utf-8", StringComparison.OrdinalIgnoreCase))
        {
            throw new ApiException(ErrorCodes.UnsupportedMediaType, "Content-Type must be application/json, in UTF-8.");
        }
        if (request.Headers.ContentEncoding is [not (null or "" or "identity"), ..])
            throw new ApiException(ErrorCodes.UnsupportedMediaType, "Content-Encoding is not supported: send the body as it is.");
        if (request.ContentLength > maxBytes)
            throw TooLarge(maxBytes);
        // What the server itself would refuse later, with chunks: one byte more than we take, so that we are the ones to say it.
        if (context.Features.Get<IHttpMaxRequestBodySizeFeature>() is { IsReadOnly: false } limit)
            limit.MaxRequestBodySize = maxBytes + 64 * 1024;

        var deadline = Deadline.Of(context);
        deadline.Pause();
        var body = await ReadAsync(request, maxBytes, context.RequestAborted);
        deadline.Resume();
        return Utf8.IsValid(body.Span) ? body : throw new ApiException(ErrorCodes.MalformedJson, "The body is not valid UTF-8.");
    }

    private static async Task<ReadOnlyMemory<byte>> ReadAsync(HttpRequest request, int maxBytes, CancellationToken cancellationToken)
    {
        while (true)
        {
            var read = await request.BodyReader.ReadAsync(cancellationToken);
            if (read.Buffer.Length > maxBytes)
                throw TooLarge(maxBytes);
            if (!read.IsCompleted)
            {
                request.BodyReader.AdvanceTo(read.Buffer.Start, read.Buffer.End);
                continue;
            }
            var body = read.Buffer.ToArray();
            request.BodyReader.AdvanceTo(read.Buffer.End);
            return body;
        }
    }

    private static ApiException TooLarge(int maxBytes) =>
        new(ErrorCodes.PayloadTooLarge, $"At most {maxBytes / 1024} KiB are taken in one request.");

    /// <summary>Reads a body that is one JSON object; every mistake in it is answered at once.</summary>
    public static async Task<T> ReadAsync<T>(HttpContext context, Func<Fields, T> read)
    {
        var bytes = await ReadBytesAsync(context, MaxBytes);
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
        new(ErrorCodes.MalformedJson, $"The body is not JSON, or nested too deeply: line {e.LineNumber + 1}, byte {e.BytePositionInLine + 1}.");
}
