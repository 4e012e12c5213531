using System.ComponentModel.DataAnnotations;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using Triggers.Api.Http;
using Triggers.Api.Requests;
using Triggers.Api.Schemas;
using Triggers.Core;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.EventTypes;

/// <summary>What a client says an event type is.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record EventTypeBody
{
    public const int MaxTextLength = 1_024;
    public const int MaxGroupLength = 64;
    public const int MaxExampleLength = 64 * 1024;

    /// <summary>The type, unique in the tenant. Types that begin with "triggers." are the system's own.</summary>
    [RegularExpression(EventTypePattern.OfPublished), Length(1, EventTypePattern.MaxLength)]
    public required string Name { get; init; }

    /// <summary>Free text for people.</summary>
    [Length(0, MaxTextLength)]
    public string? Description { get; init; }

    /// <summary>The heading it stands under.</summary>
    [Length(1, MaxGroupLength)]
    public string? Group { get; init; }

    /// <summary>What becomes of events whose <c>data</c> does not match the schema; <c>off</c> when left out.</summary>
    public ContractMode? Mode { get; init; }

    /// <summary>What a new version of the schema is held to, beside the one before; <c>none</c> when left out.</summary>
    public SchemaCompatibility? Compatibility { get; init; }

    /// <summary>JSON Schema 2020-12 of <c>data</c>, at most 64 KiB, complete in itself: version 1.</summary>
    public RawJson Schema { get; init; }

    /// <summary>A <c>data</c> that matches the schema, at most 64 KiB.</summary>
    public RawJson Example { get; init; }

    /// <summary>Why it should not be used any more, and what instead: it is deprecated then.</summary>
    [Length(1, MaxTextLength)]
    public string? Deprecation { get; init; }

    public static EventTypeBody Read(Fields fields)
    {
        var name = fields.Text("name");
        if (name is not null && (!EventTypePattern.IsType(name) || EventTypePattern.IsSystem(name)))
            fields.Refuse("/name", "Must be letters, digits, \".\", \"_\" and \"-\", and not begin with \"triggers.\".");
        return new()
        {
            Name = name!,
            Description = fields.Text("description"),
            Group = fields.Text("group"),
            Mode = fields.OneOf<ContractMode>("mode"),
            Compatibility = fields.OneOf<SchemaCompatibility>("compatibility"),
            Schema = ReadSchema(fields),
            Example = ReadExample(fields),
            Deprecation = fields.Text("deprecation"),
        };
    }

    /// <summary>Nothing where it is left out.</summary>
    internal static RawJson ReadSchema(Fields fields)
    {
        if (fields.Json("schema", SchemaOutline.MaxBytes) is not { } schema)
            return default;
        try
        {
            EventSchema.Compile(schema);
        }
        catch (SchemaRefusedException e)
        {
            foreach (var mistake in e.Mistakes)
                fields.Refuse("/schema" + mistake.Pointer, mistake.Detail);
        }
        return Raw(schema);
    }

    /// <summary>Nothing where it is left out, or null.</summary>
    internal static RawJson ReadExample(Fields fields) =>
        fields.Json("example", MaxExampleLength) is { } example ? Raw(example) : default;

    private static RawJson Raw(JsonElement element) => new(Encoding.UTF8.GetBytes(element.GetRawText()));
}

/// <summary>What of an event type is to change; what is not there stays.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record EventTypeChange
{
    private static readonly string[] Removable = ["description", "group", "example", "deprecation"];

    /// <summary>As when making it; null removes it.</summary>
    [Length(0, EventTypeBody.MaxTextLength)]
    public string? Description { get; init; }

    /// <summary>As when making it; null removes it.</summary>
    [Length(1, EventTypeBody.MaxGroupLength)]
    public string? Group { get; init; }

    /// <summary>As when making it.</summary>
    [NotRemovable]
    public ContractMode? Mode { get; init; }

    /// <summary>As when making it; holds for a schema of the same request.</summary>
    [NotRemovable]
    public SchemaCompatibility? Compatibility { get; init; }

    /// <summary>The next version, unless it is the newest already. Events are held to it within seconds.</summary>
    [NotRemovable]
    public RawJson Schema { get; init; }

    /// <summary>As when making it; null removes it.</summary>
    public RawJson Example { get; init; }

    /// <summary>As when making it; null: it is not deprecated any more.</summary>
    [Length(1, EventTypeBody.MaxTextLength)]
    public string? Deprecation { get; init; }

    /// <summary>Which of the removable ones are to change, were it to none.</summary>
    internal IReadOnlySet<string> Members { get; init; } = new HashSet<string>();

    public static EventTypeChange Read(Fields fields) => new()
    {
        Description = fields.Text("description"),
        Group = fields.Text("group"),
        Mode = fields.OneOf<ContractMode>("mode"),
        Compatibility = fields.OneOf<SchemaCompatibility>("compatibility"),
        Schema = EventTypeBody.ReadSchema(fields),
        Example = EventTypeBody.ReadExample(fields),
        Deprecation = fields.Text("deprecation"),
        Members = Removable.Where(fields.Has).ToHashSet(),
    };
}

/// <summary>An event type on a list.</summary>
internal record EventTypeView(
    string Id,
    string Name,
    string? Description,
    string? Group,
    ContractMode Mode,
    SchemaCompatibility Compatibility,
    int Version,
    string? Deprecation,
    DateTimeOffset CreatedAt,
    DateTimeOffset UpdatedAt)
{
    public static EventTypeView Of(EventType t) => new(
        TypeId.Format(TypeId.EventType, t.Id), t.Name, t.Description, t.GroupName, t.Mode, t.Compatibility, t.Version, t.Deprecation,
        t.CreatedAt, t.UpdatedAt);
}

/// <summary>An event type as clients see it, with its newest schema; null where it has none.</summary>
internal sealed record EventTypeDetails : EventTypeView
{
    public EventTypeDetails(EventTypeView type, RawJson schema, RawJson example) : base(type) => (Schema, Example) = (schema, example);

    public RawJson Schema { get; }

    public RawJson Example { get; }

    public static EventTypeDetails Of(EventType t, string? schema) => new(EventTypeView.Of(t), Raw(schema), Raw(t.Example));

    // JSON's null where there is none.
    private static RawJson Raw(string? json) => new(Encoding.UTF8.GetBytes(json ?? "null"));
}

/// <summary>A version of a schema on a list.</summary>
internal record EventTypeVersionView(int Version, DateTimeOffset CreatedAt)
{
    public static EventTypeVersionView Of(EventTypeVersion v) => new(v.Version, v.CreatedAt);
}

/// <summary>A version of a schema.</summary>
internal sealed record EventTypeVersionDetails(int Version, DateTimeOffset CreatedAt, RawJson Schema)
    : EventTypeVersionView(Version, CreatedAt);
