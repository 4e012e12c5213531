using System.Net;
using System.Net.Http.Json;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Mvc.Testing;
using Microsoft.AspNetCore.TestHost;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Time.Testing;
using Triggers.Receiver;

namespace Triggers.Tests.Receiver;

public sealed class ReceiverTests : IDisposable
{
    private static readonly DateTimeOffset s_now = new(2026, 11, 23, 12, 0, 0, TimeSpan.Zero);
    private static readonly byte[] s_secret = RandomNumberGenerator.GetBytes(24);
    private static readonly string s_secretText = "whsec_" + Convert.ToBase64String(s_secret);

    private readonly WebApplicationFactory<ReceiverMarker> _factory;
    private readonly HttpClient _client;

    public ReceiverTests()
    {
        _factory = new WebApplicationFactory<ReceiverMarker>().WithWebHostBuilder(host =>
            host.ConfigureTestServices(services => services.AddSingleton<TimeProvider>(new FakeTimeProvider(s_now))));
        _client = _factory.CreateClient();
    }

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_request_is_kept_as_it_came_newest_first()
    {
        Assert.Equal(HttpStatusCode.NoContent, (await _client.PostAsync("/hook", new StringContent("first"), Cancellation)).StatusCode);
        await _client.PostAsync("/hook/orders/7?x=1", new StringContent("second"), Cancellation);

        var items = await ReceivedAsync();
        Assert.Equal(["second", "first"], items.Select(i => i.GetProperty("body").GetString()));
        Assert.Equal("/hook/orders/7?x=1", items[0].GetProperty("path").GetString());
        Assert.Equal("text/plain; charset=utf-8", items[0].GetProperty("headers").GetProperty("content-type").GetString());
        Assert.Equal(s_now, items[0].GetProperty("receivedAt").GetDateTimeOffset());
    }

    [Fact]
    public async Task Without_a_secret_nothing_is_said_about_the_signature()
    {
        await SendSignedAsync(s_secret);

        Assert.Equal(JsonValueKind.Null, (await ReceivedAsync())[0].GetProperty("verified").ValueKind);
    }

    [Fact]
    public async Task The_answer_to_creating_a_subscription_makes_its_secret_known()
    {
        // curl -d sends this content type with whatever it is given.
        var answer = new StringContent($$"""{"id":"sub_1","url":"http://localhost/hook","secret":"{{s_secretText}}"}""",
            Encoding.UTF8, "application/x-www-form-urlencoded");
        Assert.Equal(HttpStatusCode.OK, (await _client.PostAsync("/secrets", answer, Cancellation)).StatusCode);

        await SendSignedAsync(s_secret);
        await SendSignedAsync(RandomNumberGenerator.GetBytes(24));

        Assert.Equal([false, true], (await ReceivedAsync()).Select(i => i.GetProperty("verified").GetBoolean()));
    }

    [Theory]
    [InlineData("{}")]
    [InlineData("[]")]
    [InlineData("""{"secret":"geheim"}""")]
    [InlineData("""{"secret":"whsec_%"}""")]
    [InlineData("not json")]
    public async Task What_is_no_secret_is_refused(string body) =>
        Assert.Equal(HttpStatusCode.BadRequest, (await _client.PostAsync("/secrets", new StringContent(body), Cancellation)).StatusCode);

    [Fact]
    public async Task Failures_can_be_asked_for()
    {
        Assert.Equal(HttpStatusCode.ServiceUnavailable, (await _client.PostAsync("/hook?status=503", null, Cancellation)).StatusCode);
        Assert.Equal(HttpStatusCode.BadRequest, (await _client.PostAsync("/hook?status=99", null, Cancellation)).StatusCode);

        Assert.Equal(503, (await ReceivedAsync()).Single().GetProperty("status").GetInt32());
    }

    [Fact]
    public async Task Only_the_last_thousand_are_kept_and_they_can_be_cleared()
    {
        for (var i = 0; i <= 1000; i++)
            await _client.PostAsync("/hook", new StringContent($"{i}"), Cancellation);
        var items = await ReceivedAsync(5000);
        Assert.Equal(1000, items.Count);
        Assert.Equal("1", items[^1].GetProperty("body").GetString());

        Assert.Equal(HttpStatusCode.NoContent, (await _client.DeleteAsync("/received", Cancellation)).StatusCode);
        Assert.Empty(await ReceivedAsync());
    }

    [Fact]
    public async Task The_page_loads_nothing_from_elsewhere()
    {
        var page = await _client.GetStringAsync("/", Cancellation);

        Assert.StartsWith("<!doctype html>", page);
        Assert.DoesNotContain("http://", page);
        Assert.DoesNotContain("https://", page);
    }

    private async Task SendSignedAsync(byte[] secret)
    {
        var timestamp = s_now.ToUnixTimeSeconds();
        using var request = new HttpRequestMessage(HttpMethod.Post, "/hook") { Content = new StringContent("""{"a":1}""") };
        request.Headers.Add("webhook-id", "evt_1");
        request.Headers.Add("webhook-timestamp", $"{timestamp}");
        request.Headers.Add("webhook-signature", "v1,"
            + Convert.ToBase64String(HMACSHA256.HashData(secret, Encoding.UTF8.GetBytes($$"""evt_1.{{timestamp}}.{"a":1}"""))));
        (await _client.SendAsync(request, Cancellation)).EnsureSuccessStatusCode();
    }

    private async Task<List<JsonElement>> ReceivedAsync(int limit = 100)
    {
        var answer = await _client.GetFromJsonAsync<JsonElement>($"/received?limit={limit}", Cancellation);
        return [.. answer.GetProperty("items").EnumerateArray()];
    }

    public void Dispose()
    {
        _client.Dispose();
        _factory.Dispose();
    }
}
