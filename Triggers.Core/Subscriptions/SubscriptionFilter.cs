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
    /// How many steps are spent on an event: one for each value that is looked at and each member that is looked up, and more where there
    /// are many conditions, many names or long values. What is not decided by then counts as if it held: what is sent in vain harms less
    /// than what is not sent.
    /// </summary>
    public const int MaxSteps = 10_000;

    private readonly FilterMembers _root;

    private SubscriptionFilter(FilterMembers root, string json) => (_root, Json, NeedsData) = (root, json, root.Asks("data"));

    /// <summary>As it is kept, and shown.</summary>
    public string Json { get; }

    /// <summary>Whether it asks for anything in data.</summary>
    public bool NeedsData { get; }

    /// <summary>Reads a filter.</summary>
    /// <param name="json">An object.</param>
    /// <param name="refuse">Told of each mistake: its JSON pointer within the filter, and what is wrong.</param>
    /// <returns>Null when there are mistakes.</returns>
    public static SubscriptionFilter? Read(JsonElement json, Action<string, string> refuse)
    {
        var reader = new FilterReader(refuse);
        if (json.ValueKind != JsonValueKind.Object)
            reader.Refuse("", "Must be an object.");
        else if (Encoding.UTF8.GetByteCount(json.GetRawText()) > MaxBytes)
            reader.Refuse("", $"Must be at most {MaxBytes} bytes.");
        else if (reader.Members(json, "", depth: 0) is { } root && !reader.HasMistakes)
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
    public bool Matches(string? subject, string? source, JsonElement data)
    {
        var steps = int.MaxValue;
        return Matches(subject, source, data, ref steps);
    }

    /// <summary>The same, as one of several filters that have a number of steps together.</summary>
    /// <param name="subject">The event's subject.</param>
    /// <param name="source">Its source.</param>
    /// <param name="data">Its data, where <see cref="NeedsData"/>.</param>
    /// <param name="steps">
    /// What is left of those; what this one takes is taken off. Below zero there were too few, and what was not decided counts as if it
    /// held.
    /// </param>
    public bool Matches(string? subject, string? source, JsonElement data, ref int steps)
    {
        var run = new FilterRun(subject, source, data, Math.Min(MaxSteps, steps));
        var matches = run.Matches(_root);
        steps -= run.Steps;
        return matches;
    }

    /// <summary>Whether an event is wanted whose data is here, or isn't asked for. What is no JSON is not there.</summary>
    internal bool Matches(StoredEvent e)
    {
        using var json = e.Data.Length == 0 || !e.HoldsJson ? null : JsonDocument.Parse(e.Data);
        return Matches(e.Subject, e.Source, json?.RootElement ?? default);
    }

    /// <summary>
    /// What became of each condition, and whether the event is wanted, as <see cref="Matches(string?, string?, JsonElement)"/> says.
    /// </summary>
    /// <param name="subject">The event's subject.</param>
    /// <param name="source">Its source.</param>
    /// <param name="data">Its data.</param>
    /// <param name="conditions">Those of each member that is asked for: in the order of the filter, but data last.</param>
    public bool Explain(string? subject, string? source, JsonElement data, out IReadOnlyList<FilterCondition> conditions)
    {
        // It does not end where the answer is known, so it may not come as far with the steps there are: it is no verdict.
        var run = new FilterRun(subject, source, data, MaxSteps) { Explained = [] };
        run.Matches(_root);
        conditions = [.. run.Explained.Values];
        return Matches(subject, source, data);
    }
}

/// <summary>What a filter asks of a member of an event, and what came of it.</summary>
/// <param name="Path">Where the condition is in the filter, as a JSON pointer.</param>
/// <param name="Expected">As it is written there, any of which is enough.</param>
/// <param name="Found">The event's value as JSON, its beginning where it is long; null where there is none.</param>
/// <param name="Matches">Whether it holds; within an array, of any element.</param>
public sealed record FilterCondition(string Path, string Expected, string? Found, bool Matches);
