using Triggers.Api.Errors;
using Triggers.Api.Requests;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Ingest;

/// <summary>An event as a producer sent it, in whatever format.</summary>
internal sealed class ParsedEvent
{
    public string Type { get; set; } = "";

    /// <summary>Of a CloudEvent its <c>id</c>.</summary>
    public string? ExternalId { get; set; }
    public string? Source { get; set; }
    public string? Subject { get; set; }
    public DateTimeOffset? Time { get; set; }
    public DateTimeOffset? DeliverAt { get; set; }
    public DateTimeOffset? ExpiresAt { get; set; }

    /// <summary>
    /// A JSON value. The slice of the body that is the value of <c>data</c>, white space and all that is inside it untouched; else what
    /// <see cref="DataForm"/> says.
    /// </summary>
    public ReadOnlyMemory<byte> Data { get; set; }

    /// <summary>What it has beside that; null for most.</summary>
    public EventAttributes? Attributes { get; set; }

    /// <summary>W3C trace context that the event itself names.</summary>
    public string? TraceParent { get; set; }

    /// <summary>W3C trace state that the event itself names, beside its trace parent.</summary>
    public string? TraceState { get; set; }

    /// <summary>Whether a schema can say anything of its data.</summary>
    public bool HoldsJson => Attributes is null or { HoldsJson: true };

    /// <summary>Whether it came as a CloudEvent, whose name is <c>id</c> and <c>source</c> together.</summary>
    public bool IsCloudEvent => Attributes?.SpecVersion is not null;

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

    /// <summary>The JSON pointer of its place in the body.</summary>
    public string Place { get; init; } = "";

    /// <summary>Whether its attributes are headers, and the body its data.</summary>
    public bool IsInHeaders { get; init; }

    /// <summary>Where a part of it is in the request: its members are headers where <see cref="IsInHeaders"/>.</summary>
    /// <param name="pointer">As of an event that is a JSON object.</param>
    public string PlaceOf(string pointer)
    {
        if (pointer == "/expiresAt" && IsCloudEvent)
            pointer = "/expirytime";
        if (!IsInHeaders)
            return Place + (pointer == "/dataBase64" && IsCloudEvent ? "/data_base64" : pointer);
        return pointer switch
        {
            "/data" or "/dataBase64" => "",
            "/datacontenttype" => "Content-Type",
            _ when pointer.StartsWith("/data/", StringComparison.Ordinal) => pointer["/data".Length..],
            _ => "ce-" + pointer.TrimStart('/'),
        };
    }

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
                Warnings.Add(new FieldError(PlaceOf(violation.Pointer), violation.Detail));
        }
    }

    private void RefuseAt(string pointer, string detail)
    {
        if (Errors.Count == 0 || Room.Take())
            Errors.Add(new FieldError(PlaceOf(pointer), detail));
    }
}

/// <summary>Bounds what is named of the mistakes of a request.</summary>
internal sealed class MistakesLeft
{
    private int _left = FieldErrors.Max - 1;

    /// <summary>Takes the room for one.</summary>
    public bool Take() => _left-- > 0;
}
