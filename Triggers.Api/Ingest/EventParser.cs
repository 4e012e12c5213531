using System.Text.Json;
using Triggers.Api.Errors;
using Triggers.Api.Requests;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Ingest;

/// <summary>An event as a producer sent it.</summary>
internal sealed class ParsedEvent
{
    public string Type { get; set; } = "";
    public string? ExternalId { get; set; }
    public string? Source { get; set; }
    public string? Subject { get; set; }
    public DateTimeOffset? Time { get; set; }
    public DateTimeOffset? DeliverAt { get; set; }
    public DateTimeOffset? ExpiresAt { get; set; }

    /// <summary>The slice of the body that is the value of <c>data</c>, white space and all that is inside it untouched.</summary>
    public ReadOnlyMemory<byte> Data { get; set; }

    /// <summary>What is wrong with it; then nothing else of it counts.</summary>
    public List<FieldError> Errors { get; } = [];

    /// <summary>What its type says against it, though it is accepted; null for nothing.</summary>
    public List<FieldError>? Warnings { get; private set; }

    /// <summary>Set when it is its type that refuses it, or the time that it comes at.</summary>
    public ErrorCode? ContractRefusal { get; private set; }

    /// <summary>What its refusal is called: more than one mistake is just not valid.</summary>
    public ErrorCode Code => ContractRefusal
        ?? (EventTypePattern.IsSystem(Type) && Errors.Count == 1 ? ErrorCodes.ReservedEventType : ErrorCodes.InvalidRequest);

    /// <summary>How many more mistakes the request has room for, beside the first of each event.</summary>
    public required MistakesLeft Room { get; init; }

    /// <summary>Its place in a batch; null when it is alone.</summary>
    public required int? Index { get; init; }

    /// <summary>Remembers a mistake, of a member or of the event itself. The first one is always named.</summary>
    public void Refuse(string? member, string detail) => RefuseAt(member is null ? "" : Fields.Pointer(member), detail);

    /// <summary>Its type refuses it, or the time that it comes at.</summary>
    public void Refuse(ErrorCode code, IEnumerable<FieldError> violations)
    {
        ContractRefusal = code;
        foreach (var violation in violations)
            RefuseAt(violation.Pointer, violation.Detail);
    }

    /// <summary>It was accepted before its type, or the time, refused it.</summary>
    public void TakeBack()
    {
        ContractRefusal = null;
        Errors.Clear();
    }

    /// <summary>Its type has something against it.</summary>
    public void Warn(IEnumerable<FieldError> violations)
    {
        Warnings ??= [];
        foreach (var violation in violations)
        {
            if (Warnings.Count == 0 || Room.Take())
                Warnings.Add(new FieldError(Place + violation.Pointer, violation.Detail));
        }
    }

    private string Place => Index is { } i ? $"/events/{i}" : "";

    private void RefuseAt(string pointer, string detail)
    {
        if (Errors.Count == 0 || Room.Take())
            Errors.Add(new FieldError(Place + pointer, detail));
    }
}

/// <summary>Bounds what is named of the mistakes of a request.</summary>
internal sealed class MistakesLeft
{
    private int _left = FieldErrors.Max - 1;

    /// <summary>Takes the room for one.</summary>
    public bool Take() => _left-- > 0;
}

/// <summary>Reads events straight from the bytes of a body, so that <c>data</c> can be kept byte for byte.</summary>
internal static class EventParser
{
    /// <summary>The longest externalId, source and subject.</summary>
    public const int MaxTextLength = 256;

    private static readonly string[] Names = ["type", "data", "externalId", "source", "subject", "time", "deliverAt", "expiresAt"];

    // Deeper than what we take, so that one event nested too deeply is refused alone and not with its batch.
    private static readonly JsonReaderOptions ReaderOptions = new() { MaxDepth = 1_000 };

    /// <summary>Reads the body of <c>POST /events</c>.</summary>
    public static ParsedEvent ReadOne(ReadOnlyMemory<byte> body)
    {
        try
        {
            var reader = new Utf8JsonReader(body.Span, ReaderOptions);
            reader.Read();
            var parsed = ReadEvent(ref reader, body, null, new MistakesLeft());
            reader.Read();
            return parsed;
        }
        catch (JsonException e)
        {
            throw Body.Malformed(e);
        }
    }

    /// <summary>Reads the body of <c>POST /events/batch</c>.</summary>
    public static List<ParsedEvent> ReadBatch(ReadOnlyMemory<byte> body, int maxEvents)
    {
        try
        {
            var reader = new Utf8JsonReader(body.Span, ReaderOptions);
            reader.Read();
            if (reader.TokenType != JsonTokenType.StartObject)
                throw ApiException.Invalid("", "The body must be a JSON object with the member events.");
            List<ParsedEvent>? events = null;
            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                if (!reader.ValueTextEquals("events"u8))
                    throw ApiException.Invalid(Fields.Pointer(NameOf(ref reader)), "There is no such member here, only events.");
                if (events is not null)
                    throw ApiException.Invalid("/events", "The member comes twice.");
                reader.Read();
                events = ReadEvents(ref reader, body, maxEvents);
            }
            reader.Read();
            return events is { Count: > 0 } ? events
                : throw ApiException.Invalid("/events", $"Must be an array of 1 to {maxEvents} events.");
        }
        catch (JsonException e)
        {
            throw Body.Malformed(e);
        }
    }

    private static List<ParsedEvent> ReadEvents(ref Utf8JsonReader reader, ReadOnlyMemory<byte> body, int maxEvents)
    {
        if (reader.TokenType != JsonTokenType.StartArray)
            throw ApiException.Invalid("/events", $"Must be an array of 1 to {maxEvents} events.");
        var events = new List<ParsedEvent>();
        var room = new MistakesLeft();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (events.Count == maxEvents)
                throw ApiException.Invalid("/events", $"At most {maxEvents} events are taken in one request.");
            events.Add(ReadEvent(ref reader, body, events.Count, room));
        }
        return events;
    }

    /// <summary>Reads one event, whatever is wrong with it, up to its last token.</summary>
    private static ParsedEvent ReadEvent(ref Utf8JsonReader reader, ReadOnlyMemory<byte> body, int? index, MistakesLeft room)
    {
        var parsed = new ParsedEvent { Index = index, Room = room };
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            parsed.Refuse(null, "An event must be a JSON object.");
            reader.Skip();
            return parsed;
        }

        var outside = reader.CurrentDepth;
        var seen = new Seen();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
        {
            var known = KnownName(ref reader);
            var name = known < 0 ? NameOf(ref reader) : Names[known];
            reader.Read();
            if (known < 0)
                parsed.Refuse(name, $"There is no member \"{Fields.Shorten(name)}\" here.");
            else if (!seen.First(known))
                parsed.Refuse(name, "The member comes twice.");

            if (name == "data")
                parsed.Data = ReadData(ref reader, body, parsed, name, outside);
            else if (known >= 0 && reader.TokenType is JsonTokenType.String or JsonTokenType.Null)
                ReadText(ref reader, parsed, name);
            else if (known >= 0)
                parsed.Refuse(name, "Must be text.");
            reader.Skip();
        }

        if (!seen.Has(0))
            parsed.Refuse("type", "Is required.");
        if (!seen.Has(1))
            parsed.Refuse("data", "Is required.");
        if (parsed.ExpiresAt <= parsed.DeliverAt)
            parsed.Refuse("expiresAt", "Must come after deliverAt.");
        return parsed;
    }

    private static ReadOnlyMemory<byte> ReadData(
        ref Utf8JsonReader reader, ReadOnlyMemory<byte> body, ParsedEvent parsed, string name, int outside)
    {
        var start = (int)reader.TokenStartIndex;
        if (reader.TokenType is JsonTokenType.StartObject or JsonTokenType.StartArray)
        {
            var end = reader.CurrentDepth;
            var deepest = end;
            while (reader.Read() && reader.CurrentDepth > end)
            {
                if (reader.TokenType is JsonTokenType.StartObject or JsonTokenType.StartArray)
                    deepest = Math.Max(deepest, reader.CurrentDepth);
            }
            // The event itself is the first level.
            if (deepest - outside + 1 > Body.MaxDepth)
                parsed.Refuse(name, $"An event may be nested at most {Body.MaxDepth} deep.");
        }
        return body[start..(int)reader.BytesConsumed];
    }

    private static void ReadText(ref Utf8JsonReader reader, ParsedEvent parsed, string name)
    {
        string? text;
        try
        {
            text = reader.GetString();
        }
        catch (InvalidOperationException)
        {
            // An escape that is half of a surrogate pair.
            parsed.Refuse(name, "Is not Unicode text.");
            return;
        }

        switch (name)
        {
            case "type":
                parsed.Type = text ?? "";
                if (!EventTypePattern.IsType(text))
                    parsed.Refuse(name, "Must be 1 to 256 letters, digits, \".\", \"_\" or \"-\".");
                else if (EventTypePattern.IsSystem(text))
                    parsed.Refuse(name, "Types that begin with \"triggers.\" are the system's own.");
                break;
            case "time":
                parsed.Time = ReadTime(text, parsed, name);
                break;
            case "deliverAt":
                parsed.DeliverAt = ReadTime(text, parsed, name);
                break;
            case "expiresAt":
                parsed.ExpiresAt = ReadTime(text, parsed, name);
                break;
            default:
                if (text is not null && (!Fields.IsText(text, 1, MaxTextLength)))
                    parsed.Refuse(name, $"Must be text of 1 to {MaxTextLength} characters, none of them NUL.");
                else if (name == "externalId")
                    parsed.ExternalId = text;
                else if (name == "source")
                    parsed.Source = text;
                else
                    parsed.Subject = text;
                break;
        }
    }

    private static DateTimeOffset? ReadTime(string? text, ParsedEvent parsed, string name)
    {
        if (text is null)
            return null;
        if (Rfc3339.TryParse(text, out var time))
            return time;
        parsed.Refuse(name, "Must be an RFC 3339 time, as in 2026-01-31T09:30:00Z.");
        return null;
    }

    /// <summary>Which of <see cref="Names"/> it is; -1 for none.</summary>
    private static int KnownName(ref Utf8JsonReader reader)
    {
        // Half of a surrogate pair can't be compared.
        if (reader.ValueIsEscaped)
            return Array.IndexOf(Names, NameOf(ref reader));
        for (var i = 0; i < Names.Length; i++)
        {
            if (reader.ValueTextEquals(Names[i]))
                return i;
        }
        return -1;
    }

    private static string NameOf(ref Utf8JsonReader reader)
    {
        try
        {
            return reader.GetString()!;
        }
        catch (InvalidOperationException)
        {
            return "\uFFFD";
        }
    }

    private struct Seen
    {
        private int _bits;

        public readonly bool Has(int index) => (_bits & (1 << index)) != 0;

        public bool First(int index)
        {
            var first = !Has(index);
            _bits |= 1 << index;
            return first;
        }
    }
}
