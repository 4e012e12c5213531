using System.Text.Json;
using Json.Schema;
using Triggers.Api.Errors;

namespace Triggers.Api.Schemas;

/// <summary>A compiled schema. Any number of threads may use it.</summary>
internal sealed class EventSchema
{
    private const int MaxDetail = 200;

    private static readonly JsonDocumentOptions s_deep = new() { MaxDepth = 64 };

    private readonly JsonSchema _schema;
    private readonly PlainSchema? _plain;

    private EventSchema(JsonSchema schema, PlainSchema? plain) => (_schema, _plain) = (schema, plain);

    /// <summary>Compiles a schema from outside.</summary>
    /// <exception cref="SchemaRefusedException">It is none, or none that is taken.</exception>
    public static EventSchema Compile(JsonElement schema)
    {
        try
        {
            return new EventSchema(BoundedDialect.Compile(SchemaOutline.Of(schema).Written), PlainSchema.Of(schema));
        }
        catch (Exception e) when (e is JsonSchemaException or RefResolutionException or ArgumentException or UriFormatException)
        {
            throw new SchemaRefusedException([new FieldError("", "Is no schema of JSON Schema 2020-12 that can be compiled.")]);
        }
    }

    /// <summary>Compiles a schema from its text.</summary>
    /// <exception cref="SchemaRefusedException">As for the other.</exception>
    public static EventSchema Compile(string schema)
    {
        using var document = JsonDocument.Parse(schema, s_deep);
        return Compile(document.RootElement);
    }

    /// <summary>What is wrong with a value, each with a pointer into it; empty when nothing is.</summary>
    /// <param name="json">The value.</param>
    /// <param name="steps">What judging it may cost. If there is not enough, that is what is wrong.</param>
    /// <param name="max">The most mistakes that are named.</param>
    public IReadOnlyList<FieldError> Judge(ReadOnlyMemory<byte> json, Steps steps, int max)
    {
        try
        {
            using var document = JsonDocument.Parse(json, s_deep);
            if (_plain?.Holds(document.RootElement) is true
                || _schema.Evaluate(document.RootElement, new StepOptions(steps, isDetailed: false)).IsValid)
                return [];
            var mistakes = new List<FieldError>();
            Collect(_schema.Evaluate(document.RootElement, new StepOptions(steps, isDetailed: true)), mistakes, max);
            return mistakes.Count > 0 ? mistakes : [new FieldError("", "Does not match the schema.")];
        }
        catch (StepsExceededException)
        {
            return [new FieldError("", "Can't be judged: schema and data together take more steps than a request has.")];
        }
        catch (InsufficientExecutionStackException)
        {
            return [new FieldError("", "Can't be judged: the schema goes too deep.")];
        }
        // Half of a surrogate pair, or a number beyond those that can be compared.
        catch (Exception e) when (e is InvalidOperationException or FormatException or OverflowException or JsonException)
        {
            return [new FieldError("", "Can't be judged: has text that is not Unicode, or a number that is too large.")];
        }
    }

    /// <summary>
    /// The mistakes that the verdict follows from: of alternatives none of which holds all, of what was only asked (<c>if</c>, <c>not</c>,
    /// <c>contains</c>) none.
    /// </summary>
    private static void Collect(EvaluationResults result, List<FieldError> mistakes, int max)
    {
        if (result.IsValid || mistakes.Count >= max)
            return;
        var before = mistakes.Count;
        foreach (var (_, error) in result.Errors ?? [])
            Add(error);
        var depth = result.EvaluationPath.SegmentCount;
        foreach (var group in (result.Details ?? []).GroupBy(detail => KeywordOf(detail, depth)))
        {
            if (group.Key is "if" or "not" or "contains" || group.Key is "anyOf" or "oneOf" && group.Any(detail => detail.IsValid))
                continue;
            foreach (var detail in group)
                Collect(detail, mistakes, max);
        }
        if (mistakes.Count == before)
            Add("Does not match the schema.");

        void Add(string error)
        {
            if (mistakes.Count < max)
            {
                mistakes.Add(new FieldError(
                    result.InstanceLocation.ToString(), error.Length <= MaxDetail ? error : error[..MaxDetail] + "…"));
            }
        }
    }

    private static string KeywordOf(EvaluationResults detail, int depth) =>
        detail.EvaluationPath.SegmentCount > depth ? detail.EvaluationPath.GetSegment(depth).ToString() : "";
}
