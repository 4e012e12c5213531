using System.Text;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.EventTypes;
using Triggers.Api.Requests;
using Triggers.Core.Tables;

namespace Triggers.Api.Configuration;

/// <summary>Event types, each with its newest schema.</summary>
internal sealed class EventTypesSection(Workspace at)
    : Section<EventTypeBody>("eventTypes", Scopes.EventTypesRead, Scopes.EventTypesWrite)
{
    protected override Thing Least => Describe("", new EventTypeBody { Name = "" });

    // Whoever changes one has the lock of the tenant.
    protected override async Task<Dictionary<string, Thing>> FindAllAsync(bool toChange, CancellationToken cancellationToken)
    {
        var types = from type in at.Db.EventTypes
                    where type.TenantId == at.Caller.TenantId
                    select new
                    {
                        Type = type,
                        Schema = at.Db.EventTypeVersions.Where(v => v.EventTypeId == type.Id && v.Version == type.Version)
                            .Select(v => v.Schema).FirstOrDefault(),
                    };
        return (await types.ToListAsync(cancellationToken)).ToDictionary(t => t.Type.Name, t => Describe(t.Type, t.Schema));
    }

    protected override EventTypeBody ReadOne(Fields fields) => EventTypeBody.Read(fields);

    protected override Thing Describe(string name, EventTypeBody body) => Describe(
        EventTypesApi.New(body, at.Caller.TenantId),
        body.Schema.Utf8.IsEmpty ? null : Encoding.UTF8.GetString(body.Schema.Utf8.Span));

    protected override async Task<string?> AddAsync(EventTypeBody body, CancellationToken cancellationToken)
    {
        await EventTypesApi.AddAsync(body, at.Caller, at.Db, at.Caps, cancellationToken);
        return null;
    }

    protected override async Task<string?> UpdateAsync(string name, JsonObject patch, CancellationToken cancellationToken)
    {
        await EventTypesApi.UpdateAsync(name, ReadPatch(patch, EventTypeChange.Read), at.Caller, at.Db, cancellationToken);
        return null;
    }

    protected override Task RemoveAsync(string name, CancellationToken cancellationToken) =>
        EventTypesApi.RemoveAsync(name, at.Caller, at.Db, cancellationToken);

    private static Thing Describe(EventType type, string? schema)
    {
        var members = Members<EventTypeBody>(EventTypeDetails.Of(type, schema));
        return new Thing($"{type.Id} {type.UpdatedAt.UtcTicks}", members, members);
    }
}
