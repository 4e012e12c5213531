using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Triggers.Api.Errors;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Contract;

public sealed partial class DocumentsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    /// <summary>The contract in the repository is the one that is served. <c>UPDATE_OPENAPI=1 dotnet test</c> writes it anew.</summary>
    [Fact]
    public async Task The_committed_contract_is_the_one_that_is_served()
    {
        using var client = api.Host.Client(null);
        var served = (await client.GetAsync("/openapi/v1.json")).Is(200).Text.ReplaceLineEndings("\n").TrimEnd() + "\n";
        var path = Path.Combine(Root(), "docs", "openapi.json");
        if (Environment.GetEnvironmentVariable("UPDATE_OPENAPI") == "1")
            await File.WriteAllTextAsync(path, served, TestContext.Current.CancellationToken);

        var committed = await File.ReadAllTextAsync(path, TestContext.Current.CancellationToken);

        Assert.True(served == committed,
            "docs/openapi.json is not what is served: look at the difference, and run the tests with UPDATE_OPENAPI=1.");
    }

    [Fact]
    public async Task Every_operation_has_all_that_a_reader_needs()
    {
        using var client = api.Host.Client(null);
        var document = (await client.GetAsync("/openapi/v1.json")).Is(200).Json;

        Assert.Null(document["servers"]);
        Assert.Equal("1.0.0", document["info"]!["version"]!.GetValue<string>());
        foreach (var (path, item) in document["paths"]!.AsObject())
        {
            foreach (var (method, operation) in item!.AsObject())
            {
                var name = $"{method} {path}";
                Assert.False(string.IsNullOrWhiteSpace(operation!["summary"]?.GetValue<string>()), name);
                Assert.False(string.IsNullOrWhiteSpace(operation["description"]?.GetValue<string>()), name);
                foreach (var parameter in operation["parameters"]?.AsArray() ?? [])
                    Assert.False(string.IsNullOrWhiteSpace(parameter!["description"]?.GetValue<string>()), $"{name} {parameter["name"]}");
                if (operation["requestBody"] is { } body)
                    Assert.NotNull(body["content"]!["application/json"]!["example"]);
                var responses = operation["responses"]!.AsObject();
                var success = Assert.Single(responses, r => r.Key[0] == '2');
                Assert.True(success.Key == "204" || success.Value!["content"]!["application/json"]!["example"] is not null, name);
                Assert.All(responses.Where(r => r.Key[0] is '4' or '5'), r =>
                    Assert.Matches("`[a-z_]+`", r.Value!["description"]!.GetValue<string>()));
                if (operation["security"]?.AsArray().Count > 0)
                    Assert.Superset(new HashSet<string> { "401", "403", "429", "503" }, responses.Select(r => r.Key).ToHashSet());
            }
        }
    }

    /// <summary>A group that no operation is in is an empty chapter of the reference.</summary>
    [Fact]
    public async Task Every_group_has_operations_and_every_operation_a_group()
    {
        using var client = api.Host.Client(null);
        var document = (await client.GetAsync("/openapi/v1.json")).Is(200).Json;

        var used = document["paths"]!.AsObject().SelectMany(path => path.Value!.AsObject())
            .Select(o => Assert.Single(o.Value!["tags"]!.AsArray())!.GetValue<string>());

        Assert.Equal(used.Distinct().Order(), document["tags"]!.AsArray().Select(tag => tag!["name"]!.GetValue<string>()).Order());
    }

    /// <summary>An example that the service would refuse helps nobody.</summary>
    [Fact]
    public async Task The_examples_of_bodies_are_accepted()
    {
        var tenant = await api.NewTenantAsync();
        using var admin = api.Host.Client();
        var document = (await admin.GetAsync("/openapi/v1.json")).Is(200).Json;
        JsonNode Example(string path) => document["paths"]![path]!["post"]!["requestBody"]!["content"]!["application/json"]!["example"]!;

        foreach (var path in new[] { "/events", "/events/batch", "/subscriptions", "/inbox/acknowledge" })
            Assert.InRange((await tenant.Client.PostAsync(path, Example(path).ToJsonString())).Status, 200, 202);
        foreach (var path in new[] { "/tenants", "/api-keys", "/usage-plans" })
            (await admin.PostAsync(path, Example(path).ToJsonString())).Is(201);
    }

    [Fact]
    public async Task Every_error_is_in_the_table_and_the_table_has_no_other()
    {
        var table = await File.ReadAllTextAsync(Path.Combine(Root(), "docs", "errors.md"), TestContext.Current.CancellationToken);

        var documented = ErrorRow().Matches(table).Select(m => (m.Groups[2].Value, int.Parse(m.Groups[1].Value))).ToArray();

        Assert.Equal(ErrorCodes.All.Select(e => (e.Code, e.Status)).Order(), documented.Order());
    }

    [Fact]
    public async Task Scalar_works_without_the_internet()
    {
        using var client = api.Host.Client(null);

        var page = (await client.GetAsync("/scalar/")).Is(200);

        Assert.Contains("scalar.js", page.Text);
        Assert.DoesNotMatch("(src|href)=\"(https?:)?//", page.Text);
        (await client.GetAsync("/scalar/scalar.js")).Is(200);
    }

    [GeneratedRegex(@"^\| ([0-9]{3}) \| `([a-z_]+)` \|", RegexOptions.Multiline)]
    private static partial Regex ErrorRow();

    // This file's place tells where the repository is, wherever the tests run from.
    private static string Root([CallerFilePath] string file = "") =>
        Path.GetFullPath(Path.Combine(Path.GetDirectoryName(file)!, "..", "..", ".."));
}
