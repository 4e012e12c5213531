using System.Diagnostics;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Api.Http;
using Triggers.Core;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Requests;

/// <summary>The time of a request ends before its answer begins: nobody is told half of something as if it were all.</summary>
public sealed class DeadlineTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    private static readonly TimeSpan s_over = RequestBudget.Request + TimeSpan.FromSeconds(0.5);

    /// <summary>What a handler waits for that no cancellation ends.</summary>
    private readonly TaskCompletionSource<string> _held = new();

    [Fact]
    public async Task Who_reads_a_large_page_slowly_gets_all_of_it()
    {
        var tenant = await api.NewTenantAsync();
        var key = await api.NewKeyAsync(tenant.Id);
        for (var i = 0; i < 9; i++)
            await tenant.Client.PublishAsync(data: $"\"{new string('x', 1_000_000)}\"");

        using var client = await RawClient.ConnectAsync(api.Host.Address, receiveBuffer: 16 * 1024);
        await client.SendHeadAsync("GET /events?limit=200", key);
        var (status, headers) = await client.ReadHeadAsync();
        var watch = Stopwatch.StartNew();
        await Wait.UntilAsync("the deadline is over", () => watch.Elapsed > s_over);
        var body = await client.ReadBodyAsync(headers);

        Assert.Equal(200, status);
        Assert.NotNull(body);
        var page = JsonNode.Parse(body)!;
        Assert.Equal(9, page["items"]!.AsArray().Count);
    }

    [Theory]
    [InlineData("/late")]
    [InlineData("/late-with-length")]
    public async Task An_answer_that_is_known_in_time_is_written_even_when_the_time_is_over_then(string path)
    {
        await using var app = await StartAsync();
        using var client = await RawClient.ConnectAsync(new Uri(app.Urls.Single()));

        await client.SendHeadAsync($"GET {path}", "none");
        var (status, headers) = await client.ReadHeadAsync();
        var body = await client.ReadBodyAsync(headers);

        Assert.Equal(200, status);
        Assert.Equal("\"all of it\"", Encoding.UTF8.GetString(body!));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Who_is_held_up_beyond_the_deadline_is_answered_all_the_same_and_what_comes_of_it_then_is_dropped(bool itGoesWell)
    {
        await using var app = await StartAsync();
        using var client = await RawClient.ConnectAsync(new Uri(app.Urls.Single()));

        await client.SendHeadAsync("GET /held", "none");
        var (status, headers) = await client.ReadHeadAsync();
        var body = await client.ReadBodyAsync(headers);

        Assert.Equal(503, status);
        Assert.Equal("storage_unavailable", JsonNode.Parse(body!)!["code"]!.GetValue<string>());
        Assert.Equal("close", headers["Connection"]);
        Assert.Equal("1", headers["Retry-After"]);
        if (itGoesWell)
            _held.SetResult("too late");
        else
            _held.SetException(new TimeoutException("too late"));
        // Nothing more comes on this connection.
        await Assert.ThrowsAnyAsync<IOException>(() => client.ReadHeadAsync());
    }

    [Theory]
    [InlineData("/broken")]
    [InlineData("/cancelled")]
    [InlineData("/gone")]
    public async Task An_answer_that_can_not_be_finished_ends_the_connection_without_the_end_of_an_answer(string path)
    {
        await using var app = await StartAsync();
        using var client = await RawClient.ConnectAsync(new Uri(app.Urls.Single()));

        await client.SendHeadAsync($"GET {path}", "none");

        Assert.Null(await ReadAsync(client));
    }

    /// <summary>The body of an answer that came whole, else null. A reset may overtake what was sent before it.</summary>
    private static async Task<byte[]?> ReadAsync(RawClient client)
    {
        try
        {
            var (status, headers) = await client.ReadHeadAsync();
            Assert.Equal(200, status);
            return await client.ReadBodyAsync(headers);
        }
        catch (IOException)
        {
            return null;
        }
    }

    /// <summary>The middleware that answers errors, and endpoints whose answers go wrong.</summary>
    private async Task<WebApplication> StartAsync()
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        builder.Services.AddSingleton(TimeProvider.System);
        builder.Services.AddProblems();
        var app = builder.Build();
        app.UseProblems();
        app.Use(Deadline.BoundAsync);
        app.UseRouting();
        var group = app.MapGroup("").AddEndpointFilter(Deadline.EndBeforeAnswerAsync);
        // The handler is done when the deadline passes; what is left is the writing.
        group.MapGet("/late", () => new Late(TypedResults.Ok("all of it")));
        group.MapGet("/late-with-length", () => new Late(TypedResults.Content("\"all of it\"", "application/json")));
        group.MapGet("/held", async () => TypedResults.Ok(await _held.Task));
        group.MapGet("/broken", () => new Broken(new InvalidOperationException("half way")));
        group.MapGet("/cancelled", () => new Broken(new OperationCanceledException("half way")));
        group.MapGet("/gone", () => new Broken(new IOException("half way")));
        await app.StartAsync(TestContext.Current.CancellationToken);
        return app;
    }

    private sealed class Late(IResult result) : IResult
    {
        public async Task ExecuteAsync(HttpContext context)
        {
            var watch = Stopwatch.StartNew();
            await Wait.UntilAsync("the deadline is over", () => watch.Elapsed > s_over);
            await result.ExecuteAsync(context);
        }
    }

    private sealed class Broken(Exception e) : IResult
    {
        public async Task ExecuteAsync(HttpContext context)
        {
            await context.Response.WriteAsync("[1,2", context.RequestAborted);
            await context.Response.Body.FlushAsync(context.RequestAborted);
            throw e;
        }
    }
}
