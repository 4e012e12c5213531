using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text.Json;
using System.Text.RegularExpressions;
using Json.Schema;
using Json.Schema.Keywords;

namespace Triggers.Api.Schemas;

/// <summary>
/// JSON Schema 2020-12 by JsonSchema.Net, with the keywords replaced that could go on for long, end the process, or are slow without need.
/// <c>format</c> is an annotation, as the draft has it.
/// </summary>
internal static class BoundedDialect
{
    private static readonly IKeywordHandler[] s_replaced =
    [
        new StepsKeyword(), new Pattern(), new PatternProperties(), new AdditionalProperties(), new MultipleOf(),
    ];

    private static readonly Dictionary<string, IKeywordHandler> s_byName = new(StringComparer.Ordinal);

    private static readonly Dialect s_dialect = Make();

    /// <summary>Compiles what <see cref="SchemaOutline"/> has written.</summary>
    public static JsonSchema Compile(ReadOnlyMemory<byte> written)
    {
        // Registries of its own: it finds nothing of other schemas, nor they of it. There is nothing that fetches.
        var options = new BuildOptions
        {
            SchemaRegistry = new SchemaRegistry(),
            DialectRegistry = new DialectRegistry(),
            Dialect = s_dialect,
        };
        using var document = JsonDocument.Parse(written);
        return JsonSchema.Build(document.RootElement.Clone(), options);
    }

    /// <summary>What is wrong with the value of a keyword; null when nothing is, or when there is no such keyword.</summary>
    public static string? MistakeOf(string keyword, JsonElement value)
    {
        if (!s_byName.TryGetValue(keyword, out var handler))
            return null;
        try
        {
            handler.ValidateKeywordValue(value);
            return null;
        }
        catch (Exception e) when (e is JsonSchemaException or ArgumentException or FormatException or InvalidOperationException)
        {
            return e is FormatException ? e.Message : $"Is not what {keyword} can be.";
        }
    }

    private static Dialect Make()
    {
        IKeywordHandler[] all =
        [
            .. Vocabulary.Draft202012_Core.Keywords, .. Vocabulary.Draft202012_Applicator.Keywords,
            .. Vocabulary.Draft202012_Unevaluated.Keywords, .. Vocabulary.Draft202012_Validation.Keywords,
            .. Vocabulary.Draft202012_MetaData.Keywords, .. Vocabulary.Draft202012_FormatAnnotation.Keywords,
            .. Vocabulary.Draft202012_Content.Keywords,
            // The library's vocabularies lack it.
            ThenKeyword.Instance,
            // Of two with a name the last counts. The first is still known by its type, which tells the order of keywords.
            .. s_replaced,
        ];
        foreach (var handler in all)
            s_byName[handler.Name] = handler;
        return new Dialect(all.Where(h => h is not AdditionalPropertiesKeyword or AdditionalProperties))
        {
            Id = new Uri("urn:triggers:bounded"),
            AllowUnknownKeywords = true,
        };
    }

    private static KeywordEvaluation Result(string keyword, bool isValid, string? error = null) =>
        new() { Keyword = keyword, IsValid = isValid, Error = isValid ? null : error };

    private sealed class Pattern : PatternKeyword
    {
        public override object? ValidateKeywordValue(JsonElement value) =>
            value.ValueKind == JsonValueKind.String ? SchemaPattern.Compile(value.GetString()!, out _)
                : throw new JsonSchemaException("Must be text.");

        public override KeywordEvaluation Evaluate(KeywordData keyword, EvaluationContext context) =>
            context.Instance.ValueKind != JsonValueKind.String ? KeywordEvaluation.Ignore
                : Result(Name, ((Regex)keyword.Value!).IsMatch(context.Instance.GetString()!),
                    $"Does not match the pattern {keyword.RawValue.GetString()}");
    }

    private sealed class PatternProperties : PatternPropertiesKeyword
    {
        public override object? ValidateKeywordValue(JsonElement value) =>
            value.ValueKind != JsonValueKind.Object ? throw new JsonSchemaException("Must be an object.")
                : value.EnumerateObject().ToDictionary(entry => entry.Name, entry => SchemaPattern.Compile(entry.Name, out _));
    }

    private sealed class AdditionalProperties : AdditionalPropertiesKeyword
    {
        private static readonly JsonElement s_true = JsonDocument.Parse("true").RootElement.Clone();

        public override void BuildSubschemas(KeywordData keyword, BuildContext context)
        {
            var within = context;
            within.LocalSchema = keyword.RawValue;
            keyword.Subschemas = [JsonSchema.BuildNode(within)];
            keyword.Value = context.LocalSchema.TryGetProperty("properties", out var properties)
                ? properties.EnumerateObject().Select(p => p.Name).ToHashSet(StringComparer.Ordinal) : [];
        }

        public override KeywordEvaluation Evaluate(KeywordData keyword, EvaluationContext context)
        {
            if (context.Instance.ValueKind != JsonValueKind.Object)
                return KeywordEvaluation.Ignore;
            if (context.CanOptimize && keyword.RawValue.ValueKind == JsonValueKind.True)
                return Result(Name, isValid: true);
            var known = (HashSet<string>)keyword.Value!;
            HashSet<string>? matched = null;
            foreach (var other in context.EvaluatedKeywords ?? [])
            {
                if (other is { Keyword: "patternProperties", Annotation: { } annotation })
                    matched = [.. annotation.EnumerateArray().Select(name => name.GetString()!)];
            }
            var details = context.CanOptimize ? null : new List<EvaluationResults>();
            var isValid = true;
            foreach (var property in context.Instance.EnumerateObject())
            {
                var name = property.Name;
                if (known.Contains(name) || matched?.Contains(name) is true)
                    continue;
                if (details is null)
                {
                    if (keyword.RawValue.ValueKind == JsonValueKind.False
                        || !keyword.Subschemas[0].Evaluate(context with { Instance = property.Value }).IsValid)
                        return Result(Name, isValid: false);
                    continue;
                }
                var result = keyword.Subschemas[0].Evaluate(context with
                {
                    InstanceLocation = context.InstanceLocation.Combine(name),
                    EvaluationPath = context.EvaluationPath.Combine(Name),
                    Instance = property.Value,
                });
                details.Add(result);
                isValid &= result.IsValid;
            }
            return Result(Name, isValid) with { Details = [.. details ?? []], Annotation = s_true };
        }
    }

    /// <summary>The library writes a number out digit by digit on the stack: <c>1e100000000</c> would end the process.</summary>
    private sealed class MultipleOf : MultipleOfKeyword
    {
        public override object? ValidateKeywordValue(JsonElement value) =>
            value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out var number) && number > 0 && double.IsFinite(number) ? null
                : throw new JsonSchemaException("Must be a number above 0.");

        public override KeywordEvaluation Evaluate(KeywordData keyword, EvaluationContext context) =>
            context.Instance.ValueKind != JsonValueKind.Number ? KeywordEvaluation.Ignore
                : Result(Name, IsMultiple(context.Instance, keyword.RawValue), $"Is no multiple of {keyword.RawValue.GetRawText()}");

        private static bool IsMultiple(JsonElement value, JsonElement of)
        {
            if (value.TryGetDecimal(out var exact) && of.TryGetDecimal(out var divisor) && divisor != 0)
                return exact % divisor == 0;
            return value.TryGetDouble(out var number) && double.IsFinite(number) && number % of.GetDouble() == 0;
        }
    }
}

/// <summary>
/// At the head of every schema in a schema: what judging a value by its keywords costs, before it is done. So everything that is judged is
/// counted, whatever leads to it.
/// </summary>
internal sealed class StepsKeyword : IKeywordHandler
{
    public const string KeywordName = "$triggers:steps";

    public string Name => KeywordName;

    public object? ValidateKeywordValue(JsonElement value) =>
        new Cost(value[0].GetInt32(), value[1].GetInt32(), value[2].GetInt32());

    public void BuildSubschemas(KeywordData keyword, BuildContext context)
    {
    }

    public KeywordEvaluation Evaluate(KeywordData keyword, EvaluationContext context)
    {
        RuntimeHelpers.EnsureSufficientExecutionStack();
        ((StepOptions)context.Options).Steps.Take(((Cost)keyword.Value!).Of(context.Instance));
        return KeywordEvaluation.Ignore;
    }

    /// <param name="Each">Keywords, and what they list.</param>
    /// <param name="OfBytes">What of it reads all of the value.</param>
    /// <param name="OfSquare">What of it may compare each item with each.</param>
    private sealed record Cost(long Each, long OfBytes, long OfSquare)
    {
        // To come to a schema costs as much as some keywords.
        private const long Base = 10;

        public long Of(JsonElement value)
        {
            long count = value.ValueKind switch
            {
                JsonValueKind.Array => value.GetArrayLength(),
                JsonValueKind.Object => value.GetPropertyCount(),
                _ => 0,
            };
            var bytes = OfBytes == 0 ? 0 : (long)JsonMarshal.GetRawUtf8Value(value).Length;
            var pairs = value.ValueKind == JsonValueKind.Array ? count * count : 0;
            return Base + Each + Each * count / 32 + OfBytes * bytes / 64 + OfSquare * pairs / 64;
        }
    }
}

/// <summary>How a value is judged, with the steps that are left for it.</summary>
internal sealed class StepOptions : EvaluationOptions
{
    public StepOptions(Steps steps, bool isDetailed)
    {
        Steps = steps;
        OutputFormat = isDetailed ? OutputFormat.Hierarchical : OutputFormat.Flag;
        Culture = System.Globalization.CultureInfo.InvariantCulture;
    }

    public Steps Steps { get; }
}
