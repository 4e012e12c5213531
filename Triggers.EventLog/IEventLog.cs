using Triggers.Core;
using Triggers.Core.State;

namespace Triggers.EventLog;

/// <summary>
/// The only source of truth for what was accepted. What <see cref="AppendAsync"/> answered survives the death of every process.
/// </summary>
public interface IEventLog
{
    /// <summary>
    /// Appends the events of one request, and answers once they are durable. On Postgres it is all of them or none; on Kafka a request
    /// that failed may have left some, which are delivered, and which a repetition with its idempotency key does not double.
    /// </summary>
    /// <param name="request">What to append, under which keys.</param>
    /// <param name="limit">What is left of the request's time. A commit that was begun by its end goes on.</param>
    /// <param name="cancellationToken">Ends the waiting. What was begun may still become durable.</param>
    /// <exception cref="EventLogUnavailableException">
    /// The log can't keep up, or is away, and the time is over or too short. Nothing was promised to the caller.
    /// </exception>
    Task<AppendResult> AppendAsync(AppendRequest request, TimeLimit limit, CancellationToken cancellationToken);

    /// <summary>
    /// What a request would be answered if nothing of it is new, by its idempotency key and external ids. Appends nothing.
    /// </summary>
    /// <param name="request">As for <see cref="AppendAsync"/>.</param>
    /// <param name="limit">What is left of the request's time.</param>
    /// <param name="cancellationToken">Ends the waiting.</param>
    /// <returns>Null when it has something to append.</returns>
    /// <exception cref="EventLogUnavailableException">The database did not answer in time.</exception>
    Task<AppendResult?> FindRepeatedAsync(AppendRequest request, TimeLimit limit, CancellationToken cancellationToken);

    /// <summary>Which of a request's events were accepted before, by their external ids alone. Appends nothing.</summary>
    /// <param name="request">As for <see cref="AppendAsync"/>; its idempotency key says nothing here.</param>
    /// <param name="limit">What is left of the request's time.</param>
    /// <param name="cancellationToken">Ends the waiting.</param>
    /// <returns>The ids that the request has for them.</returns>
    /// <exception cref="EventLogUnavailableException">The database did not answer in time.</exception>
    Task<IReadOnlySet<Guid>> FindAcceptedAsync(AppendRequest request, TimeLimit limit, CancellationToken cancellationToken);
}

/// <summary>The events of one request.</summary>
/// <param name="TenantId">Whose they are.</param>
/// <param name="FirstId">
/// The id the request's items are numbered from: item <c>i</c> is <c>TypeId.Add(FirstId, i)</c>. A log may number them anew, from an id of
/// the moment of appending; the result tells. It stands for the request in its idempotency key, so that a repetition can be given the ids
/// of the first time.
/// </param>
/// <param name="CorrelationId">Of the request.</param>
/// <param name="TraceParent">W3C trace context of the request.</param>
/// <param name="IdempotencyKey">The caller's key, when there was one.</param>
/// <param name="Events">In the order of the request, with growing ids. None: nothing is appended, the answer shows that the log is
/// there.</param>
public sealed record AppendRequest(
    Guid TenantId,
    Guid FirstId,
    string CorrelationId,
    string? TraceParent,
    RequestKey? IdempotencyKey,
    IReadOnlyList<NewEvent> Events)
{
    /// <summary>The same request with its items numbered from another id.</summary>
    internal AppendRequest Under(Guid firstId, string correlationId) => this with
    {
        FirstId = firstId,
        CorrelationId = correlationId,
        Events = [.. Events.Select(e => e with { Id = TypeId.Add(firstId, TypeId.Difference(e.Id, FirstId)) })],
    };
}

/// <summary>An event that is not in the log yet.</summary>
/// <param name="Id">Its place in the request, see <see cref="AppendRequest"/>.</param>
/// <param name="Type">Dotted name.</param>
/// <param name="ExternalId">The producer's own name, unique per tenant.</param>
/// <param name="ExternalKey">The same as a key, with the fingerprint of the event's content; null with it.</param>
/// <param name="Source">The producer's word.</param>
/// <param name="Subject">The producer's word.</param>
/// <param name="Time">The producer's word.</param>
/// <param name="Data">The JSON value exactly as received.</param>
/// <param name="Attributes">What it has beside that; null for most.</param>
/// <param name="TraceParent">W3C trace context of its own, in place of the request's.</param>
public sealed record NewEvent(
    Guid Id,
    string Type,
    string? ExternalId,
    RequestKey? ExternalKey,
    string? Source,
    string? Subject,
    DateTimeOffset? Time,
    ReadOnlyMemory<byte> Data,
    EventAttributes? Attributes = null,
    string? TraceParent = null)
{
    /// <summary>Nobody gets it before; null: at once.</summary>
    public DateTimeOffset? DeliverAt { get; init; }

    /// <summary>Nobody gets it from then on; null: it does not expire.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }
}

/// <summary>A key that only one request may use, and what that request said.</summary>
/// <param name="KeyHash">SHA-256 of the key.</param>
/// <param name="Fingerprint">SHA-256 of the content; the same key with another one is a conflict.</param>
public sealed record RequestKey(byte[] KeyHash, byte[] Fingerprint);

/// <summary>What became of a request.</summary>
/// <param name="Outcome">Of the request as a whole.</param>
/// <param name="CorrelationId">Of the request that was first with the idempotency key, which may be this one.</param>
/// <param name="Events">One for each event of the request, in its order; empty unless appended or repeated.</param>
public sealed record AppendResult(AppendOutcome Outcome, string CorrelationId, IReadOnlyList<AppendedEvent> Events);

/// <summary>What became of a request as a whole.</summary>
public enum AppendOutcome
{
    /// <summary>This request was the first, and is durable.</summary>
    Appended,

    /// <summary>The same request was accepted before: the events are those of the first time.</summary>
    Repeated,

    /// <summary>The idempotency key was used with other content. Nothing was appended.</summary>
    KeyReused,

    /// <summary>The first request with this key is still running. Nothing was appended.</summary>
    InProgress,
}

/// <summary>What became of one event.</summary>
/// <param name="Id">The id it has; for a conflict the id of the event that holds the external id.</param>
/// <param name="Outcome">Whether it is new.</param>
/// <param name="CorrelationId">That of the event, which was another request's if it was accepted before.</param>
public sealed record AppendedEvent(Guid Id, AppendedEventOutcome Outcome, string CorrelationId);

/// <summary>What became of one event.</summary>
public enum AppendedEventOutcome
{
    /// <summary>It is in the log now.</summary>
    Appended,

    /// <summary>The same event, by its external id, was in the log before.</summary>
    Repeated,

    /// <summary>Another event with this external id is in the log. This one is not.</summary>
    ExternalIdConflict,
}

/// <summary>The log can't take events now. Clients get 503 with <c>Retry-After</c>.</summary>
public class EventLogUnavailableException(string message, Exception? innerException = null) : Exception(message, innerException)
{
    /// <summary>Whether it is sure that nothing of the request is in the log, nor will be.</summary>
    public bool NothingWasKept { get; init; }
}

/// <summary>
/// The log can't take events of this tenant now, since too many of them wait already. Clients get 429 with <c>Retry-After</c>.
/// </summary>
public sealed class TenantLimitException : EventLogUnavailableException
{
    /// <summary>Of a request of which nothing is kept.</summary>
    public TenantLimitException(string message) : base(message) => NothingWasKept = true;
}
