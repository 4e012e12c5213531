using System.ComponentModel.DataAnnotations;
using System.Globalization;
using System.Reflection;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using Microsoft.OpenApi;
using Triggers.Api.Events;
using Triggers.Api.Http;
using Triggers.Api.Ingest;
using Triggers.Api.Operations;
using Triggers.Api.Requests;
using Triggers.Core;

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

    private static readonly string[] s_formsOfData = ["data", "dataBase64", "dataUrl"];

    private const string NoNul = "^[^\\u0000]*$";

    /// <summary>What the attributes of a member say that the generator does not know.</summary>
    public static void Limit(OpenApiSchema schema, ICustomAttributeProvider member)
    {
        var attributes = member.GetCustomAttributes(inherit: true);
        // The generator forgets it of an object in a body, which it writes in place.
        if (schema.Type == JsonSchemaType.Object && member is PropertyInfo { } property
            && (schema.Properties is { Count: > 0 } || property.PropertyType == typeof(JsonObject))
            && property.DeclaringType!.IsDefined(typeof(JsonUnmappedMemberHandlingAttribute))
            && new NullabilityInfoContext().Create(property).ReadState == NullabilityState.Nullable)
            schema.Type |= JsonSchemaType.Null;
        // What is only read it takes for nullable.
        if (member is PropertyInfo { CanWrite: false } read && schema.Type?.HasFlag(JsonSchemaType.Null) is true
            && new NullabilityInfoContext().Create(read).ReadState == NullabilityState.NotNull)
            schema.Type &= ~JsonSchemaType.Null;
        if (attributes.Any(a => a is NotRemovableAttribute))
            schema.Type &= ~JsonSchemaType.Null;
        if (attributes.OfType<LengthAttribute>().Any() && schema.Type?.HasFlag(JsonSchemaType.String) is true)
            schema.Pattern ??= NoNul;
        if (attributes.OfType<DurationAttribute>().SingleOrDefault() is { } duration)
            (schema.Items as OpenApiSchema ?? schema).Pattern = duration.Pattern;
        if (attributes.OfType<IdAttribute>().SingleOrDefault() is { } id)
            (schema.Items as OpenApiSchema ?? schema).Pattern = TypeId.Pattern(id.Prefix);
        if (attributes.OfType<ItemsAttribute>().SingleOrDefault() is { } items && schema.Items is OpenApiSchema item)
        {
            item.MinLength = 1;
            item.MaxLength = items.MaxLength;
            item.Pattern = items.Pattern;
            if (items.Values is { } values)
                (item.Enum, item.MinLength, item.MaxLength) = ([.. values.Select(v => JsonValue.Create(v))], null, null);
        }
        if (attributes.OfType<MapAttribute>().SingleOrDefault() is { } map && schema.AdditionalProperties is OpenApiSchema value)
        {
            schema.MaxProperties = map.MaxCount;
            value.Type = JsonSchemaType.String | (map.IsPatch ? JsonSchemaType.Null : default);
            value.MaxLength = map.MaxLength;
            value.Pattern = map.Pattern;
        }
    }

    /// <summary>What a parameter may be.</summary>
    public static OpenApiSchema Of(Parameter parameter) => parameter.Type switch
    {
        ParameterType.Number => new OpenApiSchema
        {
            Type = JsonSchemaType.Integer,
            Minimum = parameter.Range.Min.ToString(CultureInfo.InvariantCulture),
            Maximum = parameter.Range.Max.ToString(CultureInfo.InvariantCulture),
            Default = JsonValue.Create(parameter.Range.Default),
        },
        ParameterType.Moment => new OpenApiSchema { Type = JsonSchemaType.String, Format = "date-time" },
        ParameterType.Id => new OpenApiSchema { Type = JsonSchemaType.String, Pattern = TypeId.Pattern(parameter.IdPrefix!) },
        ParameterType.OneOf =>
            new OpenApiSchema { Type = JsonSchemaType.String, Enum = [.. parameter.Values.Select(v => JsonValue.Create(v))] },
        ParameterType.Text => new OpenApiSchema
        {
            Type = JsonSchemaType.String,
            MinLength = 1,
            MaxLength = parameter.MaxLength,
            Pattern = parameter.Pattern ?? NoNul
        },
        _ => new OpenApiSchema { Type = JsonSchemaType.String },
    };

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
        else if (bare == typeof(DateTimeOffset))
        {
            schema.Type = JsonSchemaType.String | nullable;
        }
        else if (bare.IsEnum)
        {
            // It has one schema, however many members are of its type: which of those may be null, they say themselves.
            schema.Type = JsonSchemaType.String;
            schema.Enum = schema.Enum?.Where(value => value is not null).ToList();
        }
        else if (bare == typeof(Guid))
        {
            // A prefix and 26 characters, see TypeId.
            schema.Type = JsonSchemaType.String | nullable;
            schema.Format = null;
        }
        else if (bare == typeof(PublishEvent))
        {
            schema.OneOf = [.. s_formsOfData.Select(
                name => new OpenApiSchema { Required = new SortedSet<string> { name } })];
        }
        else if (bare == typeof(StructuredCloudEvent))
        {
            // Its extension attributes.
            schema.AdditionalProperties = new OpenApiSchema();
        }
        else if (bare == typeof(Problem))
        {
            schema.Examples = [JsonNode.Parse(ProblemExample)!];
        }
        // Every member of an answer is there that does not say otherwise; the generator misses those of its base.
        else if (bare.BaseType is { } parent && parent != typeof(object) && parent.Assembly == typeof(OpenApiSchemas).Assembly
            && schema.Properties is not null)
        {
            schema.Required = new SortedSet<string>(
                type.Properties.Where(p => p.AttributeProvider?.IsDefined(typeof(JsonIgnoreAttribute), inherit: true) is not true)
                    .Select(p => p.Name).Where(schema.Properties.ContainsKey), StringComparer.Ordinal);
        }
    }
}
