using System.Text;
using System.Text.Json;
using Triggers.Core.State;

namespace Triggers.Core.Subscriptions;

/// <summary>
/// Which events, of the types it subscribed to, a subscription wants: a pattern over <c>subject</c>, <c>source</c> and <c>data</c> as those
/// of Amazon EventBridge (docs/filters.md). Read once, and bounded: in conditions when it is read, in steps when it is applied. Immutable.
/// </summary>
public sealed class SubscriptionFilter
{
    /// <summary>The longest filter, in bytes of JSON.</summary>
    public const int MaxBytes = 8 * 1024;

    /// <summary>The most conditions in one.</summary>
    public const int MaxConditions = 100;

    /// <summary>How deep the members of data may lie that it names.</summary>
    public const int MaxDepth = 16;

    /// <summary>
    /// How many values of an event are looked at. An event that is not decided by then matches: what is sent in vain harms less than what
    /// is not sent.
    /// </summary>
    public const int MaxSteps = 10_000;

    private static readonly string[] s_roots = ["subject", "source", "data"];

    private readonly Members _root;

    private SubscriptionFilter(Members root, string json) => (_root, Json) = (root, json);

    /// <summary>As it is kept, and shown.</summary>
    public string Json { get; }

    /// <summary>Whether it asks for anything in data.</summary>
    public bool NeedsData => _root.Asks("data");

    /// <summary>Reads a filter.</summary>
    /// <param name="json">An object.</param>
    /// <param name="refuse">Told of each mistake: its JSON pointer within the filter, and what is wrong.</param>
    /// <returns>Null when there are mistakes.</returns>
    public static SubscriptionFilter? Read(JsonElement json, Action<string, string> refuse)
    {
        var reading = new Reading(refuse);
        if (json.ValueKind != JsonValueKind.Object)
            reading.Refuse("", "Must be an object.");
        else if (Encoding.UTF8.GetByteCount(json.GetRawText()) > MaxBytes)
            reading.Refuse("", $"Must be at most {MaxBytes} bytes.");
        else if (reading.Members(json, "", depth: 0) is { } root && !reading.HasMistakes)
            return new SubscriptionFilter(root, JsonSerializer.Serialize(json));
        return null;
    }

    /// <summary>Reads a filter that was read before.</summary>
    /// <exception cref="FormatException">It is none.</exception>
    public static SubscriptionFilter Parse(string json)
    {
        using var document = JsonDocument.Parse(json);
        return Read(document.RootElement, (pointer, problem) => throw new FormatException($"{pointer}: {problem}"))
            ?? throw new FormatException(json);
    }

    /// <summary>Whether an event is wanted.</summary>
    /// <param name="subject">Its subject.</param>
    /// <param name="source">Its source.</param>
    /// <param name="data">Its data, where <see cref="NeedsData"/>.</param>
    public bool Matches(string? subject, string? source, JsonElement data) => new Run(subject, source, data).Matches(_root);

    /// <summary>Whether an event is wanted whose data is here, or isn't asked for. What is no JSON is not there.</summary>
    internal bool Matches(StoredEvent e)
    {
        using var json = e.Data.Length == 0 || !e.HoldsJson ? null : JsonDocument.Parse(e.Data);
        return Matches(e.Subject, e.Source, json?.RootElement ?? default);
    }

    /// <summary>What became of each condition, and of all together.</summary>
    /// <param name="subject">The event's subject.</param>
    /// <param name="source">Its source.</param>
    /// <param name="data">Its data.</param>
    /// <param name="conditions">Those of each member that is asked for, in the order of the filter.</param>
    public bool Explain(string? subject, string? source, JsonElement data, out IReadOnlyList<FilterCondition> conditions)
    {
        var run = new Run(subject, source, data) { Explained = [] };
        var matches = run.Matches(_root);
        conditions = [.. run.Explained.Values];
        return matches;
    }

    private abstract record Node;

    /// <summary>All of these members, and at least one of the alternatives.</summary>
    private sealed record Members(IReadOnlyList<(string Name, Node Node)> All, IReadOnlyList<Members> Or) : Node
    {
        public bool Asks(string name) => All.Any(member => member.Name == name) || Or.Any(alternative => alternative.Asks(name));
    }

    /// <summary>Any of these conditions of a value.</summary>
    /// <param name="Pointer">Where it is in the filter.</param>
    /// <param name="Json">As it is written there.</param>
    /// <param name="OfValues">Of a text, a number, true, false or null.</param>
    /// <param name="Exists">Whether it is enough that there is anything.</param>
    /// <param name="IsMissing">Whether it is enough that there is nothing.</param>
    private sealed record Conditions(
        string Pointer, string Json, IReadOnlyList<Func<JsonElement, bool>> OfValues, bool Exists, bool IsMissing) : Node;

    /// <summary>One application to one event.</summary>
    private sealed class Run(string? subject, string? source, JsonElement data)
    {
        private int _steps;

        public Dictionary<string, FilterCondition>? Explained { get; init; }

        private bool IsTooLong => _steps > MaxSteps;

        public bool Matches(Members root)
        {
            // What explains itself looks at everything, else it ends where the answer is known.
            var all = true;
            foreach (var (name, node) in root.All)
            {
                all &= Matches(node, Root(name));
                if (!all && Explained is null)
                    return IsTooLong;
            }
            return (all & Any(root.Or, Matches)) || IsTooLong;
        }

        private JsonElement? Root(string name) => name switch
        {
            "subject" => Text(subject),
            "source" => Text(source),
            _ => data.ValueKind == JsonValueKind.Undefined ? null : data,
        };

        private static JsonElement? Text(string? text) => text is null ? null : JsonSerializer.SerializeToElement(text);

        private bool Matches(Node node, JsonElement? value) =>
            node is Members members ? Matches(members, value) : Matches((Conditions)node, value);

        private bool Matches(Members members, JsonElement? value)
        {
            if (value is { ValueKind: JsonValueKind.Array } array && array.GetArrayLength() > 0)
                return AnyElement(array, element => Matches(members, element));
            var isObject = value is { ValueKind: JsonValueKind.Object };
            Step(isObject ? 1 + value!.Value.GetPropertyCount() / 8 : 1);
            var all = true;
            foreach (var (name, node) in members.All)
            {
                all &= Matches(node, isObject ? MemberOf(value!.Value, name) : null);
                if (!all && Explained is null)
                    return false;
            }
            return all & Any(members.Or, alternative => Matches(alternative, value));
        }

        private bool Any(IReadOnlyList<Members> alternatives, Func<Members, bool> matches)
        {
            var any = alternatives.Count == 0;
            foreach (var alternative in alternatives)
            {
                if (any && Explained is null)
                    break;
                any |= matches(alternative);
            }
            return any;
        }

        private bool Matches(Conditions conditions, JsonElement? value)
        {
            var matches = value is { } there
                ? conditions.Exists || conditions.OfValues.Count > 0 && OfValue(conditions, there)
                : conditions.IsMissing;
            if (Explained is not null)
            {
                var before = Explained.GetValueOrDefault(conditions.Pointer);
                Explained[conditions.Pointer] = before is { Matches: true } ? before
                    : new FilterCondition(conditions.Pointer, conditions.Json, Found(value), matches);
            }
            return matches;
        }

        private bool OfValue(Conditions conditions, JsonElement value)
        {
            Step(1);
            if (value.ValueKind == JsonValueKind.Array)
                return AnyElement(value, element => OfValue(conditions, element));
            return value.ValueKind != JsonValueKind.Object && conditions.OfValues.Any(condition => condition(value));
        }

        private bool AnyElement(JsonElement array, Func<JsonElement, bool> matches)
        {
            var any = false;
            foreach (var element in array.EnumerateArray())
            {
                if (any && Explained is null || IsTooLong)
                    break;
                any |= matches(element);
            }
            return any;
        }

        private void Step(int steps) => _steps += steps;

        private static string? Found(JsonElement? value) =>
            value is { } there ? there.GetRawText() is var text && text.Length > 100 ? text[..100] + "…" : text : null;
    }

    /// <summary>Reads a filter, remembering how much there is of it.</summary>
    private sealed class Reading(Action<string, string> refuse)
    {
        private static readonly string[] s_relations = ["=", "<", "<=", ">", ">="];

        private int _conditions;

        public bool HasMistakes { get; private set; }

        public void Refuse(string pointer, string problem)
        {
            HasMistakes = true;
            refuse(pointer, problem);
        }

        public Members? Members(JsonElement json, string pointer, int depth)
        {
            var (all, or) = (new List<(string, Node)>(), new List<Members>());
            foreach (var member in json.EnumerateObject())
            {
                if (HasMistakes)
                    return null;
                if (NameOf(member) is not { } name)
                {
                    Refuse(pointer, "The name of a member is not text.");
                    return null;
                }
                var at = $"{pointer}/{name.Replace("~", "~0", StringComparison.Ordinal).Replace("/", "~1", StringComparison.Ordinal)}";
                if (all.Exists(other => other.Item1 == name))
                    Refuse(at, "The member comes twice.");
                else if (name == "$or")
                    or.AddRange(Alternatives(member.Value, at, depth));
                else if (depth == 0 && !s_roots.Contains(name))
                    Refuse(at, "Must be subject, source, data or $or.");
                else if (depth == MaxDepth)
                    Refuse(at, $"Is deeper than {MaxDepth}.");
                else if (member.Value.ValueKind == JsonValueKind.Array)
                    all.Add((name, Conditions(member.Value, at)));
                else if (member.Value.ValueKind != JsonValueKind.Object || depth == 0 && name != "data")
                    Refuse(at, "Must be an array of values and conditions, as in [\"a\", {\"prefix\": \"b\"}].");
                else if (Members(member.Value, at, depth + 1) is { } deeper)
                    all.Add((name, deeper));
            }
            if (all.Count == 0 && or.Count == 0 && !HasMistakes)
                Refuse(pointer, "Must have a member.");
            return new Members(all, or);
        }

        private List<Members> Alternatives(JsonElement json, string pointer, int depth)
        {
            var alternatives = new List<Members>();
            if (json.ValueKind != JsonValueKind.Array || json.GetArrayLength() < 2
                || json.EnumerateArray().Any(alternative => alternative.ValueKind != JsonValueKind.Object))
            {
                Refuse(pointer, "Must be an array of at least two objects.");
                return alternatives;
            }
            foreach (var alternative in json.EnumerateArray())
            {
                // As deep as the members beside it, and with conditions of its own: so it ends.
                if (Members(alternative, $"{pointer}/{alternatives.Count}", depth) is not { } members)
                    break;
                alternatives.Add(members);
            }
            return alternatives;
        }

        private Conditions Conditions(JsonElement json, string pointer)
        {
            var (ofValues, exists, isMissing, at) = (new List<Func<JsonElement, bool>>(), false, false, 0);
            if (json.GetArrayLength() == 0)
                Refuse(pointer, "Must not be empty.");
            foreach (var condition in json.EnumerateArray())
            {
                var place = $"{pointer}/{at++}";
                if (++_conditions > MaxConditions)
                {
                    Refuse(place, $"Is one more than {MaxConditions} conditions.");
                    break;
                }
                if (condition.ValueKind == JsonValueKind.Object)
                {
                    if (condition.GetPropertyCount() == 1 && condition.TryGetProperty("exists", out var wanted)
                        && wanted.ValueKind is JsonValueKind.True or JsonValueKind.False)
                        (exists, isMissing) = (exists | wanted.GetBoolean(), isMissing | !wanted.GetBoolean());
                    else if (Operator(condition, place) is { } operation)
                        ofValues.Add(operation);
                }
                else if (Equal(condition) is { } equal)
                {
                    ofValues.Add(equal);
                }
                else
                {
                    Refuse(place, "Must be a text, a number, true, false, null or a condition.");
                }
            }
            return new Conditions(pointer, json.GetRawText(), ofValues, exists, isMissing);
        }

        private Func<JsonElement, bool>? Operator(JsonElement json, string pointer)
        {
            var member = json.GetPropertyCount() == 1 ? json.EnumerateObject().First() : default;
            var name = json.GetPropertyCount() == 1 ? NameOf(member) : null;
            Func<JsonElement, bool>? operation;
            string expects;
            switch (name)
            {
                case "prefix" or "suffix" or "equals-ignore-case":
                    (operation, expects) = (OfText(name, member.Value), "Must be a text of at least one character.");
                    break;
                case "numeric":
                    (operation, expects) = (Numeric(member.Value),
                        "Must be a relation and a number, or two: [\"=\", 5], [\">\", 0, \"<=\", 5].");
                    break;
                case "anything-but":
                    (operation, expects) = (AnythingBut(member.Value),
                        "Must be a text, a number, an array of those, or one of prefix, suffix and equals-ignore-case.");
                    break;
                case "exists":
                    (operation, expects) = (null, "Must be true or false.");
                    break;
                default:
                    Refuse(pointer, "Must have one member: prefix, suffix, equals-ignore-case, numeric, anything-but or exists.");
                    return null;
            }
            if (operation is null)
                Refuse($"{pointer}/{name}", expects);
            return operation;
        }

        private static Func<JsonElement, bool>? OfText(string name, JsonElement json)
        {
            if (json.ValueKind != JsonValueKind.String || TextOf(json) is not { Length: > 0 } wanted)
                return null;
            return name switch
            {
                "prefix" => value => TextOf(value) is { } text && text.StartsWith(wanted, StringComparison.Ordinal),
                "suffix" => value => TextOf(value) is { } text && text.EndsWith(wanted, StringComparison.Ordinal),
                _ => value => TextOf(value) is { } text && text.Equals(wanted, StringComparison.OrdinalIgnoreCase),
            };
        }

        private Func<JsonElement, bool>? AnythingBut(JsonElement json)
        {
            if (json.ValueKind == JsonValueKind.Object)
            {
                var member = json.GetPropertyCount() == 1 ? json.EnumerateObject().First() : default;
                if (json.GetPropertyCount() != 1 || NameOf(member) is not ("prefix" or "suffix" or "equals-ignore-case"))
                    return null;
                var texts = Listed(member.Value).Select(item => OfText(member.Name, item)).ToArray();
                return texts.Length == 0 || texts.Contains(null) ? null : value => !Array.Exists(texts, text => text!(value));
            }
            var values = Listed(json).Select(item =>
                item.ValueKind is JsonValueKind.String or JsonValueKind.Number ? Equal(item) : null).ToArray();
            return values.Length == 0 || values.Contains(null) ? null : value => !Array.Exists(values, equal => equal!(value));
        }

        /// <summary>The items, each of which counts as a condition; of what is no array, itself.</summary>
        private List<JsonElement> Listed(JsonElement json)
        {
            List<JsonElement> items = json.ValueKind == JsonValueKind.Array ? [.. json.EnumerateArray()] : [json];
            _conditions += Math.Max(0, items.Count - 1);
            return _conditions > MaxConditions ? [] : items;
        }

        private static Func<JsonElement, bool>? Numeric(JsonElement json)
        {
            if (json.ValueKind != JsonValueKind.Array || json.GetArrayLength() is not (2 or 4))
                return null;
            var bounds = new List<Func<JsonElement, bool>>();
            for (var i = 0; i < json.GetArrayLength(); i += 2)
            {
                var (relation, number) = (json[i].ValueKind == JsonValueKind.String ? TextOf(json[i]) : null, json[i + 1]);
                if (!s_relations.Contains(relation) || number.ValueKind != JsonValueKind.Number)
                    return null;
                var wanted = Number.Of(number);
                bounds.Add(relation switch
                {
                    "=" => value => Number.Of(value).CompareTo(wanted) == 0,
                    "<" => value => Number.Of(value).CompareTo(wanted) < 0,
                    "<=" => value => Number.Of(value).CompareTo(wanted) <= 0,
                    ">" => value => Number.Of(value).CompareTo(wanted) > 0,
                    _ => value => Number.Of(value).CompareTo(wanted) >= 0,
                });
            }
            return value => value.ValueKind == JsonValueKind.Number && bounds.TrueForAll(bound => bound(value));
        }

        private static Func<JsonElement, bool>? Equal(JsonElement json)
        {
            switch (json.ValueKind)
            {
                case JsonValueKind.String when TextOf(json) is { } wanted:
                    return value => value.ValueKind == JsonValueKind.String && TextOf(value) == wanted;
                case JsonValueKind.Number:
                    var number = Number.Of(json);
                    return value => value.ValueKind == JsonValueKind.Number && Number.Of(value).CompareTo(number) == 0;
                case JsonValueKind.True or JsonValueKind.False or JsonValueKind.Null:
                    var kind = json.ValueKind;
                    return value => value.ValueKind == kind;
                default:
                    return null;
            }
        }
    }

    /// <summary>A number exactly, as far as that goes: 29 digits. Beyond it is a double, larger than those or next to zero.</summary>
    private readonly record struct Number(decimal? Exact, double Rough) : IComparable<Number>
    {
        public static Number Of(JsonElement json) => json.TryGetDecimal(out var exact)
            ? new Number(exact, (double)exact)
            : new Number(null, json.TryGetDouble(out var rough) ? rough : double.NaN);

        public int CompareTo(Number other) =>
            Exact is { } mine && other.Exact is { } others ? mine.CompareTo(others) : Rough.CompareTo(other.Rough);
    }

    /// <returns>The last one of that name; null where there is none.</returns>
    private static JsonElement? MemberOf(JsonElement json, string name)
    {
        try
        {
            return json.TryGetProperty(name, out var member) ? member : null;
        }
        catch (InvalidOperationException)
        {
            // The name of another is half of a surrogate pair.
            return json.EnumerateObject().Where(member => NameOf(member) == name)
                .Select(member => (JsonElement?)member.Value).LastOrDefault();
        }
    }

    /// <returns>Null for what is no text, and for half of a surrogate pair.</returns>
    private static string? TextOf(JsonElement json)
    {
        if (json.ValueKind != JsonValueKind.String)
            return null;
        try
        {
            return json.GetString();
        }
        catch (InvalidOperationException)
        {
            return null;
        }
    }

    private static string? NameOf(JsonProperty member)
    {
        try
        {
            return member.Name;
        }
        catch (InvalidOperationException)
        {
            return null;
        }
    }
}

/// <summary>What a filter asks of a member of an event, and what came of it.</summary>
/// <param name="Path">Where the condition is in the filter, as a JSON pointer.</param>
/// <param name="Expected">As it is written there, any of which is enough.</param>
/// <param name="Found">The event's value as JSON, its beginning where it is long; null where there is none.</param>
/// <param name="Matches">Whether it holds; within an array, of any element.</param>
public sealed record FilterCondition(string Path, string Expected, string? Found, bool Matches);
