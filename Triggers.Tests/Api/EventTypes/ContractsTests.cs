using Npgsql;
using Triggers.Api.EventTypes;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.EventTypes;

public sealed class ContractsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task However_many_need_a_schema_at_once_it_is_compiled_once()
    {
        var tenant = await api.NewTenantAsync();
        var properties = string.Join(',', Enumerable.Range(0, 100).Select(i => $"\"p{i}\":{{\"minLength\":{i}}}"));
        var schema = $$$"""{"properties":{ {{{properties}}} } }""";
        (await tenant.Client.PostAsync("/event-types", $$"""{"name":"order.created","mode":"enforce","schema":{{schema}}}""")).Is(201);
        var id = await api.Rows.ScalarAsync<Guid>($"SELECT id FROM event_types WHERE tenant_id = '{tenant.Key}'");
        var contract = new TypeContract(id, ContractMode.Enforce, 1, schema.Length, null);
        await using var dataSource = NpgsqlDataSource.Create(api.ConnectionString);
        using var contracts = new Contracts(dataSource);

        var compiled = await Task.WhenAll(Enumerable.Range(0, 32).Select(_ =>
            contracts.SchemaAsync(contract, new Triggers.Api.Schemas.Steps(), TestContext.Current.CancellationToken).AsTask()));

        Assert.Single(compiled.Distinct());
    }
}
