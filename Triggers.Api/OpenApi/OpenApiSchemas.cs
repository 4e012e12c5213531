using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;
using Microsoft.OpenApi;
using Triggers.Api.Errors;
using Triggers.Api.Requests;

namespace Triggers.Api.OpenApi;

/// <summary>Says of types what their own converters make of them on the wire, which the generator can't know.</summary>
internal static class OpenApiSchemas
{
    private const string ProblemExample =
        """
        {"type":"urn:triggers:error:invalid_request","title":"The request is not valid","status":400,"detail":"The event has mistakes; see errors.",
        "code":"invalid_request","errors":[{"pointer":"/type","detail":"Must be 1 to 256 letters, digits, \".\", \"_\" or \"-\"."}],
        "traceId":"0af7651916cd43dd8448eb211c80319c","correlationId":"checkout-77"}
        """;

    public static void Correct(OpenApiSchema schema, JsonTypeInfo type)
    {
        var nullable = Nullable.GetUnderlyingType(type.Type) is not null ? JsonSchemaType.Null : default;
        var bare = Nullable.GetUnderlyingType(type.Type) ?? type.Type;
        if (bare == typeof(RawJson))
        {
            // Any JSON value.
            schema.Type = null;
            schema.Properties = null;
            schema.Required = null;
        }
        else if (bare == typeof(DateTimeOffset) || bare.IsEnum)
        {
            schema.Type = JsonSchemaType.String | nullable;
        }
        else if (bare == typeof(Guid))
        {
            // A prefix and 26 characters, see TypeId.
            schema.Type = JsonSchemaType.String;
            schema.Format = null;
        }
        else if (bare == typeof(Problem))
        {
            schema.Examples = [JsonNode.Parse(ProblemExample)!];
        }
        // Every member of an answer is there; the generator misses those of its base.
        else if (bare.BaseType is { } parent && parent != typeof(object) && parent.Assembly == typeof(OpenApiSchemas).Assembly && schema.Properties is not null)
        {
            schema.Required = new SortedSet<string>(schema.Properties.Keys, StringComparer.Ordinal);
        }
    }
}
