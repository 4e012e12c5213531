using System.Text.Json;
using Triggers.Api.Errors;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Ingest;

/// <summary>Reads events as this service has them, see <see cref="PublishEvent"/>.</summary>
internal static class EventParser
{
    /// <summary>The longest externalId, source and subject.</summary>
    public const int MaxTextLength = 256;

    /// <summary>The largest size that data elsewhere may have: what every reader of JSON holds exactly.</summary>
    public const long MaxSize = (1L << 53) - 1;

    private const int Type = 0, Data = 1, LastText = 7, DataBase64 = 8, DataUrl = 9, DataContentType = 10, DataSize = 11, DataSha256 = 12;

    private static readonly string[] Names =
    [
        "type", "data", "externalId", "source", "subject", "time", "deliverAt", "expiresAt",
        "dataBase64", "dataUrl", "dataContentType", "dataSize", "dataSha256",
    ];

    /// <summary>Reads the body of <c>POST /events</c>.</summary>
    public static ParsedEvent ReadOne(ReadOnlyMemory<byte> body) => EventJson.ReadOne(body, ReadMembers);

    /// <summary>Reads the body of <c>POST /events/batch</c>.</summary>
    public static List<ParsedEvent> ReadBatch(ReadOnlyMemory<byte> body, int maxEvents)
    {
        try
        {
            var reader = new Utf8JsonReader(body.Span, EventJson.ReaderOptions);
            reader.Read();
            if (reader.TokenType != JsonTokenType.StartObject)
                throw ApiException.Invalid("", "The body must be a JSON object with the member events.");
            List<ParsedEvent>? events = null;
            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                if (!reader.ValueTextEquals("events"u8))
                    throw ApiException.Invalid(
                        Fields.Pointer(EventJson.NameOf(ref reader)), "There is no such member here, only events.");
                if (events is not null)
                    throw ApiException.Invalid("/events", "The member comes twice.");
                reader.Read();
                events = EventJson.ReadArray(ref reader, body, "/events", maxEvents, ReadMembers);
            }
            reader.Read();
            return events is { Count: > 0 } ? events : throw EventJson.NoEvents("/events", maxEvents);
        }
        catch (JsonException e)
        {
            throw Body.Malformed(e);
        }
    }

    private static void ReadMembers(ref Utf8JsonReader reader, ReadOnlyMemory<byte> body, ParsedEvent parsed)
    {
        var outside = reader.CurrentDepth;
        var seen = new Seen();
        var form = DataForm.Value;
        string? contentType = null, sha256 = null;
        long? size = null;
        while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
        {
            var known = KnownName(ref reader);
            var name = known < 0 ? EventJson.NameOf(ref reader) : Names[known];
            reader.Read();
            if (known < 0)
                parsed.Refuse(name, $"There is no member \"{Fields.Shorten(name)}\" here.");
            else if (!seen.First(known))
                parsed.Refuse(name, "The member comes twice.");

            switch (known)
            {
                case < 0:
                    break;
                case Data:
                    parsed.Data = EventJson.ReadData(ref reader, body, parsed, name, outside);
                    break;
                case <= LastText:
                    if (reader.TokenType is JsonTokenType.String or JsonTokenType.Null)
                        ReadText(ref reader, parsed, name);
                    else
                        parsed.Refuse(name, "Must be text.");
                    break;
                case DataBase64:
                    form = DataForm.Base64;
                    parsed.Data = ReadQuoted(ref reader, parsed, name, DataFormats.IsBase64, "Must be base64 (RFC 4648), padded.");
                    break;
                case DataUrl:
                    form = DataForm.Url;
                    parsed.Data = ReadQuoted(ref reader, parsed, name, DataFormats.IsUrl,
                        $"Must be an https URL of at most {DataFormats.MaxUrlLength} characters, without user name and fragment.");
                    break;
                case DataContentType:
                    contentType = ReadOptional(ref reader, parsed, name, DataFormats.IsMediaType, "Must be a media type, as in image/png.");
                    break;
                case DataSha256:
                    sha256 = ReadOptional(ref reader, parsed, name, DataFormats.IsSha256, "Must be 64 hexadecimal digits in lower case.");
                    break;
                case DataSize:
                    if (reader.TokenType == JsonTokenType.Number && reader.TryGetInt64(out var number) && number is >= 0 and <= MaxSize)
                        size = number;
                    else if (reader.TokenType != JsonTokenType.Null)
                        parsed.Refuse(name, $"Must be a whole number from 0 to {MaxSize}.");
                    break;
            }
            reader.Skip();
        }

        if (!seen.Has(Type))
            parsed.Refuse("type", "Is required.");
        switch ((seen.Has(Data) ? 1 : 0) + (seen.Has(DataBase64) ? 1 : 0) + (seen.Has(DataUrl) ? 1 : 0))
        {
            case 0:
                parsed.Refuse("data", "Is required, or dataBase64 or dataUrl in its place.");
                break;
            case 1:
                parsed.Attributes = DataFormats.Read(parsed, form, contentType, size, sha256);
                break;
            default:
                parsed.Refuse(null, "Only one of data, dataBase64 and dataUrl can be given.");
                break;
        }
        if (parsed.ExpiresAt <= parsed.DeliverAt)
            parsed.Refuse("expiresAt", "Must come after deliverAt.");
    }

    /// <summary>A text that is kept as JSON.</summary>
    private static ReadOnlyMemory<byte> ReadQuoted(
        ref Utf8JsonReader reader, ParsedEvent parsed, string name, Predicate<string> isValid, string problem)
    {
        if (reader.TokenType == JsonTokenType.String && JsonText.Of(ref reader) is { } text && isValid(text))
            return DataFormats.Quote(text);
        parsed.Refuse(name, problem);
        return default;
    }

    private static string? ReadOptional(
        ref Utf8JsonReader reader, ParsedEvent parsed, string name, Predicate<string> isValid, string problem)
    {
        if (reader.TokenType == JsonTokenType.Null)
            return null;
        if (reader.TokenType == JsonTokenType.String && JsonText.Of(ref reader) is { } text && isValid(text))
            return text;
        parsed.Refuse(name, problem);
        return null;
    }

    private static void ReadText(ref Utf8JsonReader reader, ParsedEvent parsed, string name)
    {
        var text = JsonText.Of(ref reader);
        if (text is null && reader.TokenType != JsonTokenType.Null)
        {
            // An escape that is half of a surrogate pair.
            parsed.Refuse(name, "Is not Unicode text.");
            return;
        }
        SetText(parsed, name, text);
    }

    /// <summary>Sets a member that is text, or refuses it.</summary>
    /// <param name="parsed">The event.</param>
    /// <param name="name">Its name as of a native event.</param>
    /// <param name="text">Its value, null for none.</param>
    /// <param name="shown">Its name in the request.</param>
    public static void SetText(ParsedEvent parsed, string name, string? text, string? shown = null)
    {
        shown ??= name;
        switch (name)
        {
            case "type":
                parsed.Type = text ?? "";
                if (!EventTypePattern.IsType(text))
                    parsed.Refuse(shown, "Must be 1 to 256 letters, digits, \".\", \"_\" or \"-\".");
                else if (EventTypePattern.IsSystem(text))
                    parsed.Refuse(shown, "Types that begin with \"triggers.\" are the system's own.");
                break;
            case "time":
                parsed.Time = ReadTime(text, parsed, shown);
                break;
            case "deliverAt":
                parsed.DeliverAt = ReadTime(text, parsed, shown);
                break;
            case "expiresAt":
                parsed.ExpiresAt = ReadTime(text, parsed, shown);
                break;
            default:
                if (text is not null && !Fields.IsText(text, 1, MaxTextLength))
                    parsed.Refuse(shown, $"Must be text of 1 to {MaxTextLength} characters, none of them NUL.");
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
            return Array.IndexOf(Names, EventJson.NameOf(ref reader));
        for (var i = 0; i < Names.Length; i++)
        {
            if (reader.ValueTextEquals(Names[i]))
                return i;
        }
        return -1;
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
