using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Requests;
using Triggers.Api.UsagePlans;
using Triggers.Core.Tables;

namespace Triggers.Api.Configuration;

/// <summary>The usage plans of the platform, for its admin.</summary>
internal sealed class UsagePlansSection(Workspace at) : Section<UsagePlanBody>("usagePlans", Scopes.Admin, Scopes.Admin)
{
    private Dictionary<string, UsagePlan> _rows = [];

    protected override Thing Least => Thing.Nothing;

    protected override async Task<Dictionary<string, Thing>> FindAllAsync(bool toChange, CancellationToken cancellationToken)
    {
        var plans = toChange ? at.Db.UsagePlans.FromSql($"SELECT * FROM usage_plans ORDER BY id FOR UPDATE") : at.Db.UsagePlans;
        _rows = (await plans.ToListAsync(cancellationToken)).ToDictionary(p => p.Name);
        return _rows.ToDictionary(p => p.Key, p => Describe(p.Value));
    }

    protected override UsagePlanBody ReadOne(Fields fields) => UsagePlanBody.Read(fields);

    protected override Thing Describe(string name, UsagePlanBody body) => Describe(UsagePlansApi.New(body));

    protected override async Task<string?> AddAsync(UsagePlanBody body, CancellationToken cancellationToken)
    {
        await UsagePlansApi.AddAsync(body, at.Db, cancellationToken);
        return null;
    }

    protected override async Task<string?> UpdateAsync(string name, JsonObject patch, CancellationToken cancellationToken)
    {
        await UsagePlansApi.UpdateAsync(_rows[name].Id, ReadPatch(patch, UsagePlanChange.Read), at.Db, cancellationToken);
        return null;
    }

    protected override Task RemoveAsync(string name, CancellationToken cancellationToken) =>
        UsagePlansApi.RemoveAsync(_rows[name].Id, at.Db, cancellationToken);

    // It has no time of its last change.
    private static Thing Describe(UsagePlan plan)
    {
        var members = Members<UsagePlanBody>(UsagePlanView.Of(plan));
        return new Thing(members.ToJsonString(), members, members);
    }
}
