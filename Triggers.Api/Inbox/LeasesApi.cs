using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Triggers.Api.Auth;
using Triggers.Api.Http;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Inbox;

/// <summary>The body of a request that receives.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record ReceiveBody
{
    public const int DefaultMax = 10;

    /// <summary>The most items; 10 when left out.</summary>
    [Range(1, 1_000), NotRemovable]
    public int? Max { get; init; }

    /// <summary>Seconds to wait for something when there is nothing; 0 when left out.</summary>
    [Range(0, InboxWait.MaxSeconds), NotRemovable]
    public int? Wait { get; init; }

    /// <summary>Seconds for which nobody else gets them; what the inbox says when left out.</summary>
    [Range(1, InboxBody.MaxLeaseSeconds), NotRemovable]
    public int? Lease { get; init; }

    /// <summary>
    /// Types or patterns, as when subscribing: others stay where they are. Only the 10,000 longest waiting are looked at; an inbox of its
    /// own is the better filter.
    /// </summary>
    [Length(1, 100), Items(EventTypePattern.MaxPatternLength, Pattern = EventTypePattern.OfPatterns), NotRemovable]
    public string[]? Types { get; init; }

    public static ReceiveBody Read(Fields fields)
    {
        var types = fields.Texts("types");
        for (var i = 0; i < types?.Length; i++)
        {
            // What was no text at all has been refused as that.
            if (types[i].Length > 0 && !EventTypePattern.IsPattern(types[i]))
                fields.Refuse($"/types/{i}", "Must be *, an event type, or a type and .*, as in order.*.");
        }
        return new()
        {
            Max = fields.Number("max"),
            Wait = fields.Number("wait"),
            Lease = fields.Number("lease"),
            Types = types,
        };
    }
}

/// <summary>An event as who receives it sees it.</summary>
internal sealed record ReceivedEvent(
    string Id,
    string Type,
    DateTimeOffset CreatedAt,
    string CorrelationId,
    string? ExternalId,
    string? Source,
    string? Subject,
    DateTimeOffset? Time,
    DateTimeOffset? ExpiresAt,
    RawJson Data);

/// <summary>Something that was received.</summary>
/// <param name="Lease">What names it until it is acknowledged.</param>
/// <param name="LeaseEndsAt">When somebody else may receive it, by the database's clock.</param>
/// <param name="DeliveryCount">How often it was given out, this time included.</param>
/// <param name="Event">What it is about.</param>
internal sealed record ReceivedItem(string Lease, DateTimeOffset LeaseEndsAt, int DeliveryCount, ReceivedEvent Event);

/// <summary>What was received.</summary>
internal sealed record Received(IReadOnlyList<ReceivedItem> Items);

/// <summary>Things that were received.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record LeasesBody
{
    public const int MaxLeases = 1_000;

    /// <summary>As they were received.</summary>
    [Length(1, MaxLeases), Items(LeaseToken.MaxLength, Pattern = LeaseToken.Pattern)]
    public required string[] Leases { get; init; }

    public static LeasesBody Read(Fields fields) => new() { Leases = ReadLeases(fields)! };

    public static string[]? ReadLeases(Fields fields)
    {
        var leases = fields.Texts("leases");
        for (var i = 0; i < leases?.Length; i++)
        {
            if (leases[i].Length > 0 && !LeaseToken.TryParse(leases[i], out _))
                fields.Refuse($"/leases/{i}", "Is no lease.");
        }
        return leases;
    }
}

/// <summary>Things that are given back.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record ReleaseBody
{
    /// <summary>As they were received.</summary>
    [Length(1, LeasesBody.MaxLeases), Items(LeaseToken.MaxLength, Pattern = LeaseToken.Pattern)]
    public required string[] Leases { get; init; }

    /// <summary>Seconds until somebody may receive them; 0 when left out.</summary>
    [Range(0, InboxBody.MaxLeaseSeconds), NotRemovable]
    public int? Delay { get; init; }

    public static ReleaseBody Read(Fields fields) =>
        new() { Leases = LeasesBody.ReadLeases(fields)!, Delay = fields.Number("delay") };
}

/// <summary>Things that nobody can use.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record RejectBody
{
    /// <summary>As they were received.</summary>
    [Length(1, LeasesBody.MaxLeases), Items(LeaseToken.MaxLength, Pattern = LeaseToken.Pattern)]
    public required string[] Leases { get; init; }

    /// <summary>Why, for people; the dead letters' <c>lastError</c>.</summary>
    [Length(0, 1_000)]
    public string? Reason { get; init; }

    public static RejectBody Read(Fields fields) =>
        new() { Leases = LeasesBody.ReadLeases(fields)!, Reason = fields.Text("reason") };
}

/// <summary>Things that take longer.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record ExtendBody
{
    /// <summary>As they were received.</summary>
    [Length(1, LeasesBody.MaxLeases), Items(LeaseToken.MaxLength, Pattern = LeaseToken.Pattern)]
    public required string[] Leases { get; init; }

    /// <summary>Seconds from now.</summary>
    [Range(1, InboxBody.MaxLeaseSeconds)]
    public required int Lease { get; init; }

    public static ExtendBody Read(Fields fields) =>
        new() { Leases = LeasesBody.ReadLeases(fields)!, Lease = fields.Number("lease") ?? 0 };
}

/// <summary>What became of leases, in the order of the request.</summary>
internal sealed record LeaseResults(IReadOnlyList<LeaseResult> Items);

/// <summary>What became of a lease.</summary>
internal sealed record LeaseResult(string Lease, LeaseStatus Status);

/// <summary>Receiving from inboxes, and saying what became of it.</summary>
internal static class LeasesApi
{
    /// <summary>Maps <c>POST /inbox/receive</c> and what is below <c>/inboxes/{name}</c>.</summary>
    public static void MapLeases(this IEndpointRouteBuilder app)
    {
        app.MapPost("/inbox/receive", ReceiveFromDefaultAsync).RequireScope(Scopes.InboxWrite).WithMetadata(InboxesDocs.ReceiveDefault);
        app.MapPost("/inboxes/{name}/receive", ReceiveAsync).RequireScope(Scopes.InboxWrite).WithMetadata(InboxesDocs.Receive);
        app.MapPost("/inboxes/{name}/acknowledge", AcknowledgeAsync).RequireScope(Scopes.InboxWrite)
            .WithMetadata(InboxesDocs.Acknowledge);
        app.MapPost("/inboxes/{name}/release", ReleaseAsync).RequireScope(Scopes.InboxWrite).WithMetadata(InboxesDocs.Release);
        app.MapPost("/inboxes/{name}/reject", RejectAsync).RequireScope(Scopes.InboxWrite).WithMetadata(InboxesDocs.Reject);
        app.MapPost("/inboxes/{name}/extend", ExtendAsync).RequireScope(Scopes.InboxWrite).WithMetadata(InboxesDocs.Extend);
    }

    private static Task<Ok<Received>> ReceiveFromDefaultAsync(
        HttpContext context, Caller caller, TriggersDbContext db, InboxReceiver receiver, InboxWait inbox) =>
        ReceiveAsync(Inboxes.Default, context, caller, db, receiver, inbox);

    private static async Task<Ok<Received>> ReceiveAsync(
        string name, HttpContext context, Caller caller, TriggersDbContext db, InboxReceiver receiver, InboxWait wait)
    {
        var body = await Body.ReadOptionalAsync(context, ReceiveBody.Read) ?? new ReceiveBody();
        var inbox = await db.FindInboxAsync(caller.TenantId, name, context.RequestAborted);
        var request = new ReceiveRequest(
            inbox, body.Max ?? ReceiveBody.DefaultMax, TimeSpan.FromSeconds(body.Lease ?? inbox.LeaseSeconds),
            body.Types?.Contains("*") is false ? body.Types : []);
        var items = await wait.ForAsync(context, caller.TenantId, TimeSpan.FromSeconds(body.Wait ?? 0), async () =>
        {
            var (received, dueIn) = await receiver.ReceiveAsync(request, context.RequestAborted);
            return (received, received.Count > 0, dueIn);
        });
        return TypedResults.Ok(new Received(items));
    }

    private static async Task<Ok<LeaseResults>> AcknowledgeAsync(
        string name, HttpContext context, Caller caller, TriggersDbContext db, InboxReceiver receiver)
    {
        var body = await Body.ReadAsync(context, LeasesBody.Read);
        var inbox = await db.FindInboxAsync(caller.TenantId, name, context.RequestAborted);
        return Answer(body.Leases, await receiver.AcknowledgeAsync(inbox, Parse(body.Leases), context.RequestAborted));
    }

    private static async Task<Ok<LeaseResults>> ReleaseAsync(
        string name, HttpContext context, Caller caller, TriggersDbContext db, InboxReceiver receiver)
    {
        var body = await Body.ReadAsync(context, ReleaseBody.Read);
        var inbox = await db.FindInboxAsync(caller.TenantId, name, context.RequestAborted);
        return Answer(body.Leases, await receiver.ReleaseAsync(
            inbox, Parse(body.Leases), TimeSpan.FromSeconds(body.Delay ?? 0), context.RequestAborted));
    }

    private static async Task<Ok<LeaseResults>> RejectAsync(
        string name, HttpContext context, Caller caller, TriggersDbContext db, InboxReceiver receiver)
    {
        var body = await Body.ReadAsync(context, RejectBody.Read);
        var inbox = await db.FindInboxAsync(caller.TenantId, name, context.RequestAborted);
        return Answer(body.Leases, await receiver.RejectAsync(inbox, Parse(body.Leases), body.Reason, context.RequestAborted));
    }

    private static async Task<Ok<LeaseResults>> ExtendAsync(
        string name, HttpContext context, Caller caller, TriggersDbContext db, InboxReceiver receiver)
    {
        var body = await Body.ReadAsync(context, ExtendBody.Read);
        var inbox = await db.FindInboxAsync(caller.TenantId, name, context.RequestAborted);
        return Answer(body.Leases, await receiver.ExtendAsync(
            inbox, Parse(body.Leases), TimeSpan.FromSeconds(body.Lease), context.RequestAborted));
    }

    private static Lease[] Parse(string[] leases) =>
        [.. leases.Select(text => LeaseToken.TryParse(text, out var lease) ? lease : throw new FormatException(text)).Distinct()];

    private static Ok<LeaseResults> Answer(string[] leases, Dictionary<Lease, LeaseStatus> results) =>
        TypedResults.Ok(new LeaseResults([.. leases.Select(
            text => new LeaseResult(text, LeaseToken.TryParse(text, out var lease) ? results[lease] : LeaseStatus.NotFound))]));
}
