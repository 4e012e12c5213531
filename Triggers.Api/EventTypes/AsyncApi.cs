using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.Schemas;
using Triggers.Core;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.EventTypes;

/// <summary>
/// The tenant's event types as an AsyncAPI 3.0 document. The application that it describes is this service: it sends each event to those
/// who subscribe to its type, in the envelope or as a CloudEvent, by the format of the subscription.
/// </summary>
internal static class AsyncApi
{
    private const int MaxCharacters = 8 * 1024 * 1024;
    private const string ExampleId = "evt_01jd0000000000000000000000";
    private const string ExampleTime = "2026-01-31T09:30:00Z";

    /// <summary>Answers <c>GET /asyncapi.json</c>.</summary>
    public static async Task<Ok<RawJson>> GetAsync(Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        // Warming up asks for a tenant that there is not.
        var tenant = await db.Tenants.FirstOrDefaultAsync(t => t.Id == caller.TenantId, cancellationToken)
            ?? throw ApiException.NotFound("tenant");
        var length = await db.EventTypes.Where(t => t.TenantId == caller.TenantId)
            .SumAsync(t => (t.Example ?? "").Length
                + db.EventTypeVersions.Where(v => v.EventTypeId == t.Id && v.Version == t.Version).Sum(v => v.Schema.Length),
                cancellationToken);
        if (length > MaxCharacters)
            throw new ApiException(ErrorCodes.LimitReached, "The schemas and examples of all types have more than 8 MiB.");
        var types = await (
            from t in db.EventTypes
            where t.TenantId == caller.TenantId
            join v in db.EventTypeVersions on new { t.Id, t.Version } equals new { Id = v.EventTypeId, v.Version } into versions
            from v in versions.DefaultIfEmpty()
            orderby t.Name
            select new { Type = t, Schema = (string?)v.Schema }).ToListAsync(cancellationToken);
        var document = Of(tenant, types.Select(t => (t.Type, (string?)t.Schema)));
        return TypedResults.Ok(new RawJson(JsonSerializer.SerializeToUtf8Bytes(document, Http.Json.Options)));
    }

    private static JsonObject Of(Tenant tenant, IEnumerable<(EventType Type, string? Schema)> types)
    {
        var (channels, operations, messages, schemas) = (new JsonObject(), new JsonObject(), new JsonObject(), new JsonObject());
        foreach (var (type, schema) in types)
        {
            schemas[type.Name] = schema is null ? new JsonObject() : Moved(JsonNode.Parse(schema), $"#/components/schemas/{type.Name}");
            messages[type.Name] = EnvelopeOf(type);
            var cloudEvent = type.Name + ".cloudevents";
            channels[type.Name] = new JsonObject
            {
                ["address"] = type.Name,
                ["messages"] = new JsonObject
                {
                    [type.Name] = Reference($"#/components/messages/{type.Name}"),
                    [cloudEvent] = CloudEventOf(type),
                },
            };
            operations[type.Name] = new JsonObject
            {
                ["action"] = "send",
                ["channel"] = Reference($"#/channels/{type.Name}"),
                ["messages"] = new JsonArray(
                    Reference($"#/channels/{type.Name}/messages/{type.Name}"), Reference($"#/channels/{type.Name}/messages/{cloudEvent}")),
            };
        }
        return new JsonObject
        {
            ["asyncapi"] = "3.0.0",
            ["info"] = new JsonObject { ["title"] = $"Events of {tenant.Name}", ["version"] = tenant.ContractsVersion.ToString() },
            ["defaultContentType"] = "application/json",
            ["channels"] = channels,
            ["operations"] = operations,
            ["components"] = new JsonObject { ["messages"] = messages, ["schemas"] = schemas },
        };
    }

    private static JsonObject EnvelopeOf(EventType type) => MessageOf(
        type, "envelope", "application/json",
        [
            ("id", Text()), ("type", new JsonObject { ["const"] = type.Name }), ("timestamp", Text("date-time")), ("data", DataOf(type)),
            ("source", Text()), ("subject", Text()), ("externalId", Text()),
        ],
        required: 4,
        new JsonObject { ["id"] = ExampleId, ["type"] = type.Name, ["timestamp"] = ExampleTime });

    private static JsonObject CloudEventOf(EventType type) => MessageOf(
        type, "cloudevents", CloudEvent.MediaType,
        [
            ("specversion", new JsonObject { ["const"] = "1.0" }), ("id", Text()), ("source", Text("uri-reference")),
            ("type", new JsonObject { ["const"] = type.Name }), ("time", Text("date-time")), ("data", DataOf(type)), ("subject", Text()),
            ("datacontenttype", Text()), ("dataschema", Text("uri")),
        ],
        required: 5,
        new JsonObject
        {
            ["specversion"] = "1.0",
            ["id"] = ExampleId,
            ["source"] = "/shop",
            ["type"] = type.Name,
            ["time"] = ExampleTime,
            ["datacontenttype"] = "application/json",
        });

    /// <summary>An event of a type, as subscriptions of a format are sent it.</summary>
    /// <param name="type">The type.</param>
    /// <param name="format">Of the subscriptions.</param>
    /// <param name="contentType">What that is sent as.</param>
    /// <param name="members">Of its body, with their schemas.</param>
    /// <param name="required">So many of them, from the first on, are always there.</param>
    /// <param name="example">A body but for its data.</param>
    private static JsonObject MessageOf(
        EventType type, string format, string contentType, (string Name, JsonObject Schema)[] members, int required, JsonObject example)
    {
        var message = new JsonObject
        {
            ["name"] = type.Name,
            ["title"] = $"{type.Name}, in the format {format}",
            ["contentType"] = contentType,
            ["headers"] = JsonNode.Parse(
                """
                {"type":"object","required":["webhook-id","webhook-timestamp","webhook-signature"],"properties":{
                "webhook-id":{"type":"string"},"webhook-timestamp":{"type":"string"},"webhook-signature":{"type":"string"}}}
                """),
            ["payload"] = new JsonObject
            {
                ["type"] = "object",
                ["required"] = new JsonArray([.. members.Take(required).Select(m => JsonValue.Create(m.Name))]),
                ["properties"] = new JsonObject(members.Select(m => KeyValuePair.Create<string, JsonNode?>(m.Name, m.Schema))),
            },
            ["x-schema-version"] = type.Version,
        };
        if (type.Description is { } description)
            message["description"] = description;
        if (type.Deprecation is { } deprecation)
            message["x-deprecated"] = deprecation;
        if (type.GroupName is { } group)
            message["tags"] = new JsonArray(new JsonObject { ["name"] = group });
        if (type.Example is { } data)
        {
            example["data"] = JsonNode.Parse(data);
            message["examples"] = new JsonArray(new JsonObject { ["payload"] = example });
        }
        return message;
    }

    private static JsonObject Text(string? format = null) =>
        format is null ? new() { ["type"] = "string" } : new() { ["type"] = "string", ["format"] = format };

    private static JsonObject DataOf(EventType type) => Reference($"#/components/schemas/{type.Name}");

    private static JsonObject Reference(string to) => new() { ["$ref"] = to };

    /// <summary>A schema whose references lead to where it is now.</summary>
    private static JsonNode? Moved(JsonNode? schema, string root)
    {
        if (schema is not JsonObject members)
            return schema;
        // Its own address would make its references lead there.
        members.Remove("$id");
        members.Remove("$schema");
        foreach (var (name, value) in members.ToArray())
        {
            if (name is "$ref" && value is JsonValue reference && reference.GetValue<string>() is ['#', .. var place]
                && (place.Length == 0 || place[0] == '/'))
                members[name] = root + place;
            else if (SchemaKeywords.SameValue.Contains(name) || SchemaKeywords.Part.Contains(name))
                Moved(value, root);
            else if (value is JsonArray items
                && (SchemaKeywords.ArraysOfSameValue.Contains(name) || SchemaKeywords.ArraysOfPart.Contains(name)))
                items.ToList().ForEach(item => Moved(item, root));
            else if (value is JsonObject map
                && (SchemaKeywords.MapsOfSameValue.Contains(name) || SchemaKeywords.MapsOfPart.Contains(name)))
                map.ToList().ForEach(entry => Moved(entry.Value, root));
        }
        return schema;
    }
}
