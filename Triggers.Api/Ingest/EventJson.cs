using System.Text.Json;
using Triggers.Api.Errors;
using Triggers.Api.Requests;
using Triggers.Core;

namespace Triggers.Api.Ingest;

/// <summary>
/// What events have in common in JSON, whatever they are written as: they are read straight from the bytes of a body, so that <c>data</c>
/// can be kept byte for byte.
/// </summary>
internal static class EventJson
{
    /// <summary>Deeper than what we take, so that one event nested too deeply is refused alone and not with its batch.</summary>
    public static readonly JsonReaderOptions ReaderOptions = new() { MaxDepth = 1_000 };

    /// <summary>Reads the members of an event, up to the end of its object.</summary>
    /// <param name="reader">At the beginning of the object.</param>
    /// <param name="body">What it reads.</param>
    /// <param name="parsed">Gets them, and their mistakes.</param>
    public delegate void ReadMembers(ref Utf8JsonReader reader, ReadOnlyMemory<byte> body, ParsedEvent parsed);

    /// <summary>Reads a body that is an event.</summary>
    public static ParsedEvent ReadOne(ReadOnlyMemory<byte> body, ReadMembers readMembers)
    {
        try
        {
            var reader = new Utf8JsonReader(body.Span, ReaderOptions);
            reader.Read();
            var parsed = new ParsedEvent { Index = null, Room = new MistakesLeft() };
            ReadEvent(ref reader, body, parsed, readMembers);
            reader.Read();
            return parsed;
        }
        catch (JsonException e)
        {
            throw Body.Malformed(e);
        }
    }

    /// <summary>Reads an array of events.</summary>
    /// <param name="reader">At the array.</param>
    /// <param name="body">What it reads.</param>
    /// <param name="place">JSON pointer of the array.</param>
    /// <param name="maxEvents">The most of them.</param>
    /// <param name="readMembers">Reads one.</param>
    /// <exception cref="ApiException">It is no array, or there are more.</exception>
    public static List<ParsedEvent> ReadArray(
        ref Utf8JsonReader reader, ReadOnlyMemory<byte> body, string place, int maxEvents, ReadMembers readMembers)
    {
        if (reader.TokenType != JsonTokenType.StartArray)
            throw NoEvents(place, maxEvents);
        var events = new List<ParsedEvent>();
        var room = new MistakesLeft();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (events.Count == maxEvents)
                throw ApiException.Invalid(place, $"At most {maxEvents} events are taken in one request.");
            var parsed = new ParsedEvent { Index = events.Count, Place = $"{place}/{events.Count}", Room = room };
            ReadEvent(ref reader, body, parsed, readMembers);
            events.Add(parsed);
        }
        return events;
    }

    /// <summary>There is no array, or nothing in it.</summary>
    public static ApiException NoEvents(string place, int maxEvents) =>
        ApiException.Invalid(place, $"Must be an array of 1 to {maxEvents} events.");

    /// <summary>The bytes of the value of <c>data</c>.</summary>
    /// <param name="reader">At the value.</param>
    /// <param name="body">What it reads.</param>
    /// <param name="parsed">The event.</param>
    /// <param name="name">Of the member.</param>
    /// <param name="outside">How deep the event is in the body.</param>
    public static ReadOnlyMemory<byte> ReadData(
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

    /// <summary>A member's name, whatever is wrong with it.</summary>
    public static string NameOf(ref Utf8JsonReader reader) => JsonText.Of(ref reader) ?? "\uFFFD";

    /// <summary>Reads one event, whatever is wrong with it, up to its last token.</summary>
    private static void ReadEvent(ref Utf8JsonReader reader, ReadOnlyMemory<byte> body, ParsedEvent parsed, ReadMembers readMembers)
    {
        if (reader.TokenType == JsonTokenType.StartObject)
        {
            readMembers(ref reader, body, parsed);
            return;
        }
        parsed.Refuse(null, "An event must be a JSON object.");
        reader.Skip();
    }
}
