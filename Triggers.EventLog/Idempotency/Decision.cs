namespace Triggers.EventLog.Idempotency;

/// <summary>What is to be done about a request, as far as its keys decide it.</summary>
internal abstract record Decision
{
    private Decision()
    {
    }

    /// <summary>It can be answered, once what it won is in the log.</summary>
    /// <param name="Result">The answer.</param>
    /// <param name="ToAppend">The events that are this request's to append.</param>
    /// <param name="Unused">Keys that it holds and that stand for nothing.</param>
    public sealed record Answer(AppendResult Result, IReadOnlyList<NewEvent> ToAppend, IReadOnlyList<KeyId> Unused) : Decision;

    /// <summary>A request with the same keys is running, or a key was let go just now: look again.</summary>
    public sealed record Wait : Decision
    {
        public static readonly Wait Instance = new();
    }

    /// <summary>The owners of keys did not come to an end in their time: first find out what they left in the log.</summary>
    public sealed record Resolve(IReadOnlyList<KeyId> Keys) : Decision;

    /// <summary>
    /// What becomes of a request by who holds its keys. A key is the request's own if it holds the request's id: that of the event for an
    /// external id, the first of the request for an idempotency key.
    /// </summary>
    /// <param name="request">The request, under the ids that it appends with.</param>
    /// <param name="holders">Who holds its keys, this request among them.</param>
    public static Decision Decide(AppendRequest request, IReadOnlyDictionary<KeyId, Holder> holders)
    {
        if (request.IdempotencyKey is not { } key)
            return DecideEvents(request, holders);
        var id = KeyId.Idempotency(request.TenantId, key);
        if (!holders.TryGetValue(id, out var holder))
            return Wait.Instance;
        if (holder.EventId == request.FirstId)
            return DecideEvents(request, holders);
        if (holder.State == HolderState.Abandoned)
            return new Resolve([id]);
        if (!holder.Says(key))
            return new Answer(new AppendResult(AppendOutcome.KeyReused, request.CorrelationId, []), [], []);
        return holder.State == HolderState.Busy ? Wait.Instance : Repeat(request, holder, holders);
    }

    /// <summary>The request holds its idempotency key, or has none: each event goes in that holds its external id, or has none.</summary>
    private static Decision DecideEvents(AppendRequest request, IReadOnlyDictionary<KeyId, Holder> holders)
    {
        var events = new List<AppendedEvent>(request.Events.Count);
        var toAppend = new List<NewEvent>();
        var abandoned = new List<KeyId>();
        var wait = false;
        foreach (var e in request.Events)
        {
            if (e.ExternalKey is not { } external)
            {
                Append(e);
                continue;
            }
            var id = KeyId.External(request.TenantId, external);
            if (!holders.TryGetValue(id, out var holder))
                wait = true;
            else if (holder.EventId == e.Id)
                Append(e);
            // The same external id twice in one request: the first of them is the event.
            else if (toAppend.Exists(first => first.Id == holder.EventId))
                events.Add(Known(holder, external));
            else if (holder.State == HolderState.Abandoned)
                abandoned.Add(id);
            else if (holder.State == HolderState.Busy && holder.Says(external))
                wait = true;
            else
                events.Add(Known(holder, external));
        }
        if (abandoned.Count > 0)
            return new Resolve(abandoned);
        if (wait)
            return Wait.Instance;
        // A request that lost every event to others has not used its idempotency key.
        return new Answer(
            new AppendResult(AppendOutcome.Appended, request.CorrelationId, events), toAppend,
            toAppend.Count == 0 && request.IdempotencyKey is { } key ? [KeyId.Idempotency(request.TenantId, key)] : []);

        void Append(NewEvent e)
        {
            toAppend.Add(e);
            events.Add(new AppendedEvent(e.Id, AppendedEventOutcome.Appended, request.CorrelationId));
        }
    }

    /// <summary>The request was accepted before: its events have the ids of then, but for those whose external ids others held.</summary>
    private static Decision Repeat(AppendRequest request, Holder first, IReadOnlyDictionary<KeyId, Holder> holders)
    {
        var repeated = request.Under(first.EventId, first.CorrelationId);
        var events = new List<AppendedEvent>(request.Events.Count);
        foreach (var e in repeated.Events)
        {
            var known = new AppendedEvent(e.Id, AppendedEventOutcome.Appended, first.CorrelationId);
            if (e.ExternalKey is { } external && holders.TryGetValue(KeyId.External(request.TenantId, external), out var holder)
                && holder.EventId != e.Id)
            {
                if (holder.State == HolderState.Abandoned)
                    return new Resolve([KeyId.External(request.TenantId, external)]);
                if (holder.State == HolderState.Busy && holder.Says(external))
                    return Wait.Instance;
                known = Known(holder, external);
            }
            events.Add(known);
        }
        return new Answer(new AppendResult(AppendOutcome.Repeated, first.CorrelationId, events), [], []);
    }

    private static AppendedEvent Known(Holder holder, RequestKey key) => new(
        holder.EventId, holder.Says(key) ? AppendedEventOutcome.Repeated : AppendedEventOutcome.ExternalIdConflict, holder.CorrelationId);
}

/// <summary>What a key is.</summary>
internal enum KeyKind : short
{
    /// <summary><c>Idempotency-Key</c>: of a whole request.</summary>
    Idempotency = 0,

    /// <summary><c>externalId</c>: of one event.</summary>
    External = 1,
}

/// <summary>How far the request that holds a key is.</summary>
internal enum HolderState
{
    /// <summary>It has its answer.</summary>
    Settled = 0,

    /// <summary>It is running.</summary>
    Busy = 1,

    /// <summary>It has not come to an end in its time; its events may be in the log or not.</summary>
    Abandoned = 2,
}

/// <summary>Who holds a key.</summary>
/// <param name="Fingerprint">SHA-256 of the content that came with the key.</param>
/// <param name="EventId">The first id of the request, or the id of the event.</param>
/// <param name="CorrelationId">Of that request.</param>
/// <param name="State">How far it is.</param>
/// <param name="ReservedBy">The log that it appends to, if it reserved the key first; null also for one of a version before.</param>
internal sealed record Holder(byte[] Fingerprint, Guid EventId, string CorrelationId, HolderState State, string? ReservedBy = null)
{
    /// <summary>Whether the content is the same.</summary>
    public bool Says(RequestKey key) => Fingerprint.AsSpan().SequenceEqual(key.Fingerprint);
}

/// <summary>A key as a value.</summary>
internal readonly record struct KeyId(Guid TenantId, KeyKind Kind, string Hash)
{
    public static IEnumerable<KeyId> AllOf(AppendRequest request)
    {
        if (request.IdempotencyKey is { } key)
            yield return Idempotency(request.TenantId, key);
        foreach (var e in request.Events)
        {
            if (e.ExternalKey is { } external)
                yield return External(request.TenantId, external);
        }
    }

    public static KeyId Idempotency(Guid tenantId, RequestKey key) => new(tenantId, KeyKind.Idempotency, Convert.ToHexString(key.KeyHash));

    public static KeyId External(Guid tenantId, RequestKey key) => new(tenantId, KeyKind.External, Convert.ToHexString(key.KeyHash));
}
