using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Inbox;
using Triggers.Api.Requests;
using Triggers.Core.Tables;

namespace Triggers.Api.Configuration;

/// <summary>Inboxes that were made: the one named <c>default</c> is there in any case.</summary>
internal sealed class InboxesSection(Workspace at)
    : Section<InboxBody>("inboxes", Scopes.SubscriptionsRead, Scopes.SubscriptionsWrite)
{
    protected override Thing Least => Describe("", new InboxBody { Name = "", EventTypes = [] });

    protected override async Task<Dictionary<string, Thing>> FindAllAsync(bool toChange, CancellationToken cancellationToken)
    {
        var inboxes = toChange
            ? at.Db.Subscriptions.FromSql(
                $"""
                SELECT * FROM subscriptions
                WHERE tenant_id = {at.Caller.TenantId} AND inbox <> 'default' AND deleted_at IS NULL
                ORDER BY id FOR NO KEY UPDATE
                """)
            : InboxesApi.Made(at.Db, at.Caller.TenantId);
        return (await inboxes.ToListAsync(cancellationToken)).ToDictionary(s => s.Inbox!, Describe);
    }

    protected override InboxBody ReadOne(Fields fields) => InboxBody.Read(fields);

    protected override Thing Describe(string name, InboxBody body) => Describe(InboxesApi.New(body, at.Caller.TenantId));

    protected override async Task<string?> AddAsync(InboxBody body, CancellationToken cancellationToken)
    {
        await InboxesApi.AddAsync(body, at.Caller, at.Db, at.Caps, cancellationToken);
        return null;
    }

    protected override async Task<string?> UpdateAsync(string name, JsonObject patch, CancellationToken cancellationToken)
    {
        await InboxesApi.UpdateAsync(name, ReadPatch(patch, InboxChange.Read), at.Caller, at.Db, at.Caps, cancellationToken);
        return null;
    }

    protected override Task RemoveAsync(string name, CancellationToken cancellationToken) =>
        InboxesApi.RemoveAsync(name, at.Caller, at.Db, cancellationToken);

    private static Thing Describe(Subscription inbox)
    {
        var members = Members<InboxBody>(InboxView.Of(inbox, default));
        return new Thing($"{inbox.Id} {inbox.UpdatedAt.UtcTicks}", members, members);
    }
}
