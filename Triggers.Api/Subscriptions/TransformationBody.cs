using System.ComponentModel.DataAnnotations;
using System.Net.Http.Headers;
using System.Text.Json.Serialization;
using Triggers.Api.Requests;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Core.Transformations;

namespace Triggers.Api.Subscriptions;

/// <summary>
/// Templates, in Liquid, that a subscription's requests are made by. They see <c>event</c>, which is the envelope, and
/// <c>subscription.id</c>. Kept encrypted.
/// </summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record TransformationBody
{
    private const int MaxTemplateLength = 32 * 1024;
    private const int MaxContentTypeLength = 200;

    /// <summary>The body, as in <c>{"text":"{{ event.data.name }}","tags":{{ event.data.tags | json }}}</c>.</summary>
    [Length(1, MaxTemplateLength)]
    public required string Template { get; init; }

    /// <summary>
    /// The body's media type, in UTF-8; <c>application/json</c> when left out. Values are escaped by it, and JSON is checked.
    /// </summary>
    [Length(1, MaxContentTypeLength)]
    public string? ContentType { get; init; }

    /// <summary>Sent beside those of every webhook. Names as of a subscription's <c>headers</c>, values in Liquid.</summary>
    [Map(SubscriptionBody.MaxHeaders, WebhookHeaders.MaxValueLength)]
    public Dictionary<string, string>? Headers { get; init; }

    /// <summary><c>POST</c> (unless said), <c>PUT</c> or <c>PATCH</c>.</summary>
    [Length(3, 5), RegularExpression("^(POST|PUT|PATCH)$")]
    public string? Method { get; init; }

    /// <summary>The member <c>transformation</c>, with every mistake of its templates.</summary>
    public static Transformation? ReadMember(Fields fields) => fields.Object<TransformationBody, Transformation>("transformation", Read);

    private static Transformation Read(Fields fields)
    {
        var template = fields.Text("template");
        var transformation = new Transformation
        {
            Template = template ?? "",
            ContentType = ReadContentType(fields) ?? Transformation.DefaultContentType,
            Headers = ReadHeaders(fields),
            Method = ReadMethod(fields) ?? Transformation.DefaultMethod,
        };
        var mistakes = RoomyThread.Run(() => TransformationFormat.MistakesOf(transformation).ToArray());
        foreach (var (header, mistake) in mistakes)
            fields.Refuse(header is null ? "/template" : "/headers" + Fields.Pointer(header), mistake.Message);
        return transformation;
    }

    private static string? ReadContentType(Fields fields)
    {
        if (fields.Text("contentType") is not { } type)
            return null;
        if (WebhookHeaders.IsValue(type) && MediaTypeHeaderValue.TryParse(type, out var media)
            && media.CharSet?.Trim('"').ToUpperInvariant() is null or "UTF-8")
            return type;
        fields.Refuse("/contentType", "Must be a media type, as in application/json, and its charset utf-8 where it has one.");
        return null;
    }

    private static string? ReadMethod(Fields fields)
    {
        var method = fields.Text("method");
        if (method is null or "POST" or "PUT" or "PATCH")
            return method;
        fields.Refuse("/method", "Must be POST, PUT or PATCH.");
        return null;
    }

    private static Dictionary<string, string> ReadHeaders(Fields fields)
    {
        var headers = fields.Map("headers") ?? [];
        using var request = new HttpRequestMessage();
        foreach (var (name, value) in headers)
        {
            if (WebhookHeaders.Add(request.Headers, name, "") is { } problem)
                fields.Refuse("/headers" + Fields.Pointer(name), problem);
            else if (value == SubscriptionView.Masked)
                fields.Refuse("/headers" + Fields.Pointer(name), "Is what readers see in place of the value.");
        }
        return headers.ToDictionary(header => header.Key, header => header.Value ?? "");
    }
}

/// <summary>A transformation as clients see it.</summary>
/// <param name="Template">The body, in Liquid.</param>
/// <param name="ContentType">The body's media type.</param>
/// <param name="Headers">In Liquid; the values are <c>***</c> for who may not change subscriptions.</param>
/// <param name="Method">How requests are sent.</param>
internal sealed record TransformationView(
    string Template, string ContentType, IReadOnlyDictionary<string, string> Headers, string Method)
{
    public static TransformationView Of(Transformation t, bool withValues) => new(
        t.Template, t.ContentType, withValues ? t.Headers : t.Headers.ToDictionary(h => h.Key, _ => SubscriptionView.Masked), t.Method);
}
