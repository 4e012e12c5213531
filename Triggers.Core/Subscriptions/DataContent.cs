using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Triggers.Core.State;

namespace Triggers.Core.Subscriptions;

/// <summary>The data of an event alone, as the body of a request.</summary>
internal static class DataContent
{
    /// <summary>A request with the data and nothing else: bytes as they are, text in UTF-8, and no body where there is none here.</summary>
    public static WebhookMessage MessageOf(StoredEvent e)
    {
        var message = new WebhookMessage(MessageFormat.WithoutData(e), BytesOf(e));
        return e.Attributes is null ? message
            : message with { ContentType = TypeOf(e) is { } type ? MediaTypeHeaderValue.Parse(type) : null };
    }

    /// <summary>What the data is; null where nobody said.</summary>
    public static string? TypeOf(StoredEvent e) =>
        e.Attributes?.DataContentType ?? (e.Attributes is null or { DataForm: DataForm.Value } ? "application/json" : null);

    /// <summary>Where the data is; null where it is here.</summary>
    public static string? UrlOf(StoredEvent e) => e.Attributes?.DataForm is DataForm.Url ? TextOf(e) : null;

    private static byte[] BytesOf(StoredEvent e) => e.Attributes?.DataForm switch
    {
        DataForm.Base64 => Convert.FromBase64String(TextOf(e)),
        DataForm.Url or DataForm.None => [],
        _ => e.HoldsJson ? e.Data : Encoding.UTF8.GetBytes(TextOf(e)),
    };

    private static string TextOf(StoredEvent e) => JsonSerializer.Deserialize<string>(e.Data)!;
}
