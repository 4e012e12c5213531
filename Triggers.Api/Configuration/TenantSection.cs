using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Requests;
using Triggers.Api.Tenants;
using Triggers.Core.Tables;

namespace Triggers.Api.Configuration;

/// <summary>What a tenant's own admin says of the tenant.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record TenantSettings
{
    /// <summary>What becomes of events of types that are not at <c>/event-types</c>; stays as it is when left out.</summary>
    [NotRemovable]
    public UnknownEventTypes? UnknownEventTypes { get; init; }

    public static TenantSettings Read(Fields fields) =>
        new() { UnknownEventTypes = fields.OneOf<UnknownEventTypes>("unknownEventTypes") };
}

/// <summary>The settings of the tenant itself: one thing, without a name.</summary>
internal sealed class TenantSection(Workspace at) : Section("tenant", Scopes.TenantAdmin, Scopes.TenantAdmin)
{
    private UnknownEventTypes _there;
    private TenantSettings? _wanted;

    /// <inheritdoc/>
    public override string Stamp => _there.ToString();

    // The transaction has its lock.
    public override async Task FindAsync(bool toChange, CancellationToken cancellationToken) =>
        _there = await at.Db.Tenants.Where(t => t.Id == at.Caller.TenantId).Select(t => t.UnknownEventTypes)
            .FirstOrDefaultAsync(cancellationToken);

    /// <inheritdoc/>
    public override void Read(Fields document) => _wanted = document.Object(Name, TenantSettings.Read);

    /// <inheritdoc/>
    public override JsonObject Write() => MembersOf(_there);

    /// <inheritdoc/>
    public override IEnumerable<Step> Steps(JsonElement wanted, bool prune)
    {
        if (_wanted?.UnknownEventTypes is not { } unknown || unknown == _there)
            yield break;
        var before = new Thing("", MembersOf(_there), MembersOf(_there));
        var after = new Thing("", MembersOf(unknown), MembersOf(unknown));
        yield return new Step(
            new ConfigurationChange(Name, null, ChangeAction.Update, Compare(before, after, _ => false)), async cancellationToken =>
            {
                await TenantsApi.UpdateAsync(
                    at.Caller.TenantId, new TenantChange { UnknownEventTypes = unknown }, at.Caller, at.Db, cancellationToken);
                return null;
            });
    }

    private static JsonObject MembersOf(UnknownEventTypes unknown) =>
        Members<TenantSettings>(new TenantSettings { UnknownEventTypes = unknown });
}
