using System.Text;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Api.Requests;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Requests;

/// <summary>What clients send is bounded in time and in bytes, however many send it how slowly.</summary>
public sealed class BodiesTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    private const int Mebibyte = 1024 * 1024;

    [Fact]
    public async Task Of_many_mistakes_the_first_hundred_are_named()
    {
        var tenant = await api.NewTenantAsync();
        var many = string.Join(",", Enumerable.Repeat("\"\":1", 150_000));

        foreach (var (path, body) in new[]
            {
                ("/events", $"{{{many}}}"), ("/subscriptions", $"{{{many}}}"),
                ("/subscriptions", $"{{{string.Join(",", Enumerable.Range(0, 60_000).Select(i => $"\"m{i}\":1"))}}}"),
                ("/inbox/acknowledge", $"{{\"ids\":[{string.Join(",", Enumerable.Repeat("7", 1_000))}]}}"),
            })
        {
            var answer = (await tenant.Client.PostAsync(path, body)).IsProblem(400, "invalid_request");
            Assert.InRange(answer.Pointers.Length, 100, 101);
            Assert.InRange(answer.Text.Length, 100, 30_000);
        }
        var query = string.Join("&", Enumerable.Range(0, 300).Select(i => $"p{i}=1"));
        Assert.Equal(100, (await tenant.Client.GetAsync($"/events?{query}")).IsProblem(400, "invalid_request").Pointers.Length);
    }

    [Fact]
    public async Task Of_a_batch_every_event_names_its_first_mistake_and_all_together_a_hundred_more()
    {
        var tenant = await api.NewTenantAsync();
        var bad = $"{{{string.Join(",", Enumerable.Repeat("\"\":1", 100))}}}";

        var answer = (
            await tenant.Client.PostAsync("/events/batch", $"{{\"events\":[{string.Join(",", Enumerable.Repeat(bad, 1_000))}]}}"))
            .IsProblem(400, "batch_refused");

        var counts = answer.Json["items"]!.AsArray().Select(item => item!["errors"]!.AsArray().Count).ToList();
        Assert.Equal(1_000, counts.Count);
        Assert.All(counts, count => Assert.True(count >= 1));
        Assert.InRange(counts.Sum(), 1_000, 1_100);
    }

    [Fact]
    public async Task A_body_that_drips_is_answered_408_when_its_time_is_over_and_holds_nothing_then()
    {
        await using var host = new ApiHost(api.ConnectionString, ("Requests:BodyTimeout", "00:00:01"));
        var tenant = await api.NewTenantAsync();
        var key = await api.NewKeyAsync(tenant.Id);
        using var ready = host.Client();
        await ready.WaitUntilReadyAsync();
        using var client = await RawClient.ConnectAsync(host.Address);

        await client.SendHeadAsync("POST /events", key, "Content-Type: application/json", "Content-Length: 100000");
        var answer = client.ReadHeadAsync();
        while (!answer.IsCompleted)
        {
            // Above the server's own minimum rate, so that it is our bound that ends it.
            await client.SendAsync(Encoding.ASCII.GetBytes(new string(' ', 300)));
            await Task.WhenAny(answer, Task.Delay(100, TestContext.Current.CancellationToken));
        }

        var (status, headers) = await answer;
        Assert.Equal(408, status);
        Assert.Equal("close", headers["Connection"]);
        Assert.Contains("request_timeout", Encoding.UTF8.GetString((await client.ReadBodyAsync(headers))!), StringComparison.Ordinal);
        await Wait.UntilAsync("nothing is held", () => Memory(host).Total == 0);
    }

    [Fact]
    public async Task What_the_bodies_of_a_tenant_hold_is_bounded_and_others_are_let_in()
    {
        const long Limit = 8 * Mebibyte;
        await using var host = new ApiHost(
            api.ConnectionString, ("Requests:BodyTimeout", "00:00:20"), ("Requests:MaxBodyBytesPerTenant", $"{Limit}"));
        var (loud, quiet) = (await api.NewTenantAsync(), await api.NewTenantAsync());
        var keys = new[] { await api.NewKeyAsync(loud.Id), await api.NewKeyAsync(loud.Id) };
        using var other = host.Client(await api.NewKeyAsync(quiet.Id));
        using var ready = host.Client();
        await ready.WaitUntilReadyAsync();
        var memory = Memory(host);

        var clients = new List<(RawClient Client, Task<(int Status, Dictionary<string, string>)> Answer)>();
        var sending = new List<Task>();
        for (var i = 0; i < 100; i++)
        {
            var client = await RawClient.ConnectAsync(host.Address);
            await client.SendHeadAsync("POST /events/batch", keys[i % 2], "Content-Type: application/json", "Content-Length: 4000000");
            clients.Add((client, client.ReadHeadAsync()));
            sending.Add(SendAsync(client));
        }
        await Wait.UntilAsync("most are refused", () => clients.Count(c => c.Answer.IsCompletedSuccessfully) >= 60);

        // 250 kB each: 8 MiB has room for a third of them.
        Assert.InRange(memory.Total, 1, Limit);
        Assert.All(clients.Where(c => c.Answer.IsCompletedSuccessfully), c => Assert.Equal(429, c.Answer.Result.Status));
        Assert.InRange(clients.Count(c => !c.Answer.IsCompleted), 20, 40);
        Assert.Equal(202, (await other.PostAsync("/events", """{"type":"a","data":1}""")).Status);
        using var loudClient = host.Client(keys[0]);
        var refused = (await loudClient.PostAsync("/events", $$"""{"type":"a","data":"{{new string('x', 900_000)}}"}"""))
            .IsProblem(429, "too_many_bytes");
        Assert.Equal("1", refused.Headers["Retry-After"]);

        foreach (var (client, _) in clients)
            client.Dispose();
        await Task.WhenAll(sending);
        await Wait.UntilAsync("nothing is held", () => memory.Total == 0);
    }

    [Fact]
    public async Task Of_large_bodies_a_tenant_has_few_at_a_time_and_the_others_are_not_read()
    {
        await using var host = new ApiHost(api.ConnectionString, ("Requests:MaxBodyBytesPerTenant", $"{8 * Mebibyte}"));
        var loud = await api.NewKeyAsync((await api.NewTenantAsync()).Id);
        using var other = host.Client(await api.NewKeyAsync((await api.NewTenantAsync()).Id));
        using var ready = host.Client();
        await ready.WaitUntilReadyAsync();
        var event900kB = $$"""{"type":"a","data":"{{new string('x', 900_000)}}"}""";
        var clients = new List<(RawClient Client, Task<(int Status, Dictionary<string, string>)> Answer)>();
        for (var i = 0; i < 3; i++)
        {
            var client = await RawClient.ConnectAsync(host.Address);
            await client.SendHeadAsync("POST /events", loud, "Content-Type: application/json", "Content-Length: 1000000");
            clients.Add((client, client.ReadHeadAsync()));
            await client.SendAsync(new byte[500_000]);
        }

        // A quarter of 8 MiB has room for two.
        var refused = await (await Task.WhenAny(clients.Select(c => c.Answer)));
        Assert.Equal(429, refused.Status);
        Assert.Equal("close", refused.Item2["Connection"]);
        Assert.Equal(2, clients.Count(c => !c.Answer.IsCompleted));
        // As much of the refused one as there was before it had to wait may not be given back yet.
        Assert.InRange(Memory(host).Total, 2_000_000, 2_000_000 + 400_000);
        using var loudClient = host.Client(loud);
        (await loudClient.PostAsync("/events", event900kB)).IsProblem(429, "too_many_bytes");
        Assert.Equal(202, (await loudClient.PostAsync("/events", """{"type":"a","data":1}""")).Status);
        Assert.Equal(202, (await other.PostAsync("/events", event900kB)).Status);

        clients.ForEach(c => c.Client.Dispose());
        await Wait.UntilAsync("there is room again", async () => (await loudClient.PostAsync("/events", event900kB)).Status == 202);
    }

    [Fact]
    public async Task What_all_bodies_hold_together_is_bounded()
    {
        const long Limit = 8 * Mebibyte;
        await using var host = new ApiHost(api.ConnectionString, ("Requests:MaxBodyBytes", $"{Limit}"));
        using var ready = host.Client();
        await ready.WaitUntilReadyAsync();
        var clients = new List<RawClient>();
        var answers = new List<Task<(int Status, Dictionary<string, string>)>>();
        for (var i = 0; i < 4; i++)
        {
            var key = await api.NewKeyAsync((await api.NewTenantAsync()).Id);
            for (var j = 0; j < 3; j++)
            {
                var client = await RawClient.ConnectAsync(host.Address);
                clients.Add(client);
                await client.SendHeadAsync("POST /events", key, "Content-Type: application/json", "Content-Length: 1000000");
                answers.Add(client.ReadHeadAsync());
                await client.SendAsync(new byte[900_000]);
            }
        }

        await Wait.UntilAsync("some are refused", () => answers.Any(a => a.IsCompletedSuccessfully));
        Assert.InRange(Memory(host).Total, 1, Limit);
        Assert.All(answers.Where(a => a.IsCompletedSuccessfully), a => Assert.Equal(503, a.Result.Status));
        clients.ForEach(client => client.Dispose());
        await Wait.UntilAsync("nothing is held", () => Memory(host).Total == 0);
    }

    private static BodyMemory Memory(ApiHost host) => host.Services.GetRequiredService<BodyMemory>();

    private static async Task SendAsync(RawClient client)
    {
        try
        {
            await client.SendAsync(new byte[250_000]);
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            // Refused while it was sending.
        }
    }
}
