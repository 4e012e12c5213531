using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.EntityFrameworkCore.Migrations;
using Microsoft.EntityFrameworkCore.Migrations.Operations;
using Triggers.Api.Auth;
using Triggers.Core;
using Triggers.Core.Schema;
using Triggers.Tests.Support;

namespace Triggers.Tests.Core;

/// <summary>What 0008_tenant_plans.sql makes of keys and plans that were there before.</summary>
public sealed class TenantPlansMigrationTests(PostgresServer postgres)
{
    [Fact]
    public async Task Plans_of_keys_become_those_of_tenants_and_admins_of_tenants_stay_in_theirs()
    {
        await using var dataSource = Storage.Builder(await postgres.CreateDatabaseAsync(), "tests").Build();
        var rows = new Rows(dataSource);
        var options = new DbContextOptionsBuilder<TriggersDbContext>();
        options.UseTriggers(dataSource);
        await using var db = new TriggersDbContext(options.Options);
        await MigrateToVersionBeforeAsync(db, rows);
        await rows.ExecuteAsync(
            """
            INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), 'default'), (gen_random_uuid(), 'acme'),
                (gen_random_uuid(), 'unplanned');
            INSERT INTO usage_plans (id, name, requests_per_second, burst, events_per_day)
            VALUES (gen_random_uuid(), 'small', 5, 10, 100), (gen_random_uuid(), 'large', 50, 100, 1000),
                (gen_random_uuid(), 'endless', 1, 1, NULL);
            INSERT INTO api_keys (id, tenant_id, name, prefix, hash, scopes, usage_plan_id, burst, revoked_at)
            SELECT gen_random_uuid(), t.id, k.name, 'trg_', sha256(convert_to(k.name, 'UTF8')), k.scopes, p.id, k.burst,
                CASE WHEN k.name = 'revoked' THEN now() END
            FROM (VALUES
                ('default', 'bootstrap', '{admin}'::text[], NULL, NULL::int),
                ('acme', 'administers', '{admin}', NULL, NULL),
                ('acme', 'publishes', '{events:write}', 'small', 7),
                ('acme', 'reads', '{events:read}', 'large', NULL),
                ('acme', 'revoked', '{events:read}', 'endless', NULL),
                ('unplanned', 'writes', '{keys:write}', NULL, NULL)) AS k (tenant, name, scopes, plan, burst)
            JOIN tenants t ON t.name = k.tenant LEFT JOIN usage_plans p ON p.name = k.plan
            """);

        await SchemaVersion.MigrateAsync(db, TestContext.Current.CancellationToken);

        Assert.Equal("acme:large,default:,unplanned:", await rows.ScalarAsync<string>(
            "SELECT string_agg(t.name || ':' || coalesce(p.name, ''), ',' ORDER BY t.name) FROM tenants t LEFT JOIN usage_plans p ON "
                + "p.id = t.usage_plan_id"));
        Assert.Equal("administers::,bootstrap::,publishes:5:7,reads::,revoked:1:1,writes::", await rows.ScalarAsync<string>(
            "SELECT string_agg(name || ':' || coalesce(requests_per_second::text, '') || ':' || coalesce(burst::text, ''), ',' ORDER "
                + "BY name) FROM api_keys"));
        Assert.Equal("{admin}", await rows.ScalarAsync<string>(
            "SELECT scopes::text FROM api_keys WHERE name = 'bootstrap' AND bootstrap = 'current'"));
        var scopes = await rows.ScalarAsync<string[]>("SELECT scopes FROM api_keys WHERE name = 'administers'");
        Assert.Equal(Scopes.All.Where(s => s != Scopes.Admin).Order(), Scopes.Expand(scopes).Order());
    }

    // EF can't be told to stop there: it takes the names of our migrations for something else.
    private static async Task MigrateToVersionBeforeAsync(TriggersDbContext db, Rows rows)
    {
        var (migrations, history) = (db.GetService<IMigrationsAssembly>(), db.GetService<IHistoryRepository>());
        await rows.ExecuteAsync(history.GetCreateScript());
        foreach (var (id, type) in migrations.Migrations.TakeWhile(m => m.Key != "0008_tenant_plans"))
        {
            foreach (var script in migrations.CreateMigration(type, db.Database.ProviderName!).UpOperations.Cast<SqlOperation>())
                await rows.ExecuteAsync(script.Sql);
            await rows.ExecuteAsync(history.GetInsertScript(new HistoryRow(id, "10")));
        }
    }
}
