using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Setup;

/// <summary>Which pages of other origins browsers let call the API: those that <c>Cors:Origins</c> names, and no others.</summary>
public sealed class CorsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task Origins_come_with_commas_between_them_and_may_end_with_a_slash()
    {
        await using var host = new ApiHost(api.ConnectionString, ("Cors:Origins", "https://a.example, https://b.example/"));

        Assert.Equal("https://a.example", await AllowedAsync(host, "https://a.example"));
        Assert.Equal("https://b.example", await AllowedAsync(host, "https://b.example"));
        Assert.Null(await AllowedAsync(host, "https://c.example"));
    }

    [Fact]
    public async Task Origins_come_as_a_list()
    {
        await using var host = new ApiHost(
            api.ConnectionString, ("Cors:Origins:0", "https://a.example"), ("Cors:Origins:1", "https://b.example"));

        Assert.Equal("https://b.example", await AllowedAsync(host, "https://b.example"));
        Assert.Null(await AllowedAsync(host, "https://c.example"));
    }

    [Fact]
    public async Task Without_the_setting_no_origin_is_let_in() => Assert.Null(await AllowedAsync(api.Host, "https://a.example"));

    [Fact]
    public async Task A_page_may_ask_before_it_sends_and_read_errors_and_our_headers()
    {
        await using var host = new ApiHost(api.ConnectionString, ("Cors:Origins", "https://a.example"));
        using var browser = new HttpClient { BaseAddress = host.Address };

        using var asked = new HttpRequestMessage(HttpMethod.Options, "/events");
        asked.Headers.Add("Origin", "https://a.example");
        asked.Headers.Add("Access-Control-Request-Method", "POST");
        asked.Headers.Add("Access-Control-Request-Headers", "x-api-key,content-type");
        using var allowed = await browser.SendAsync(asked, TestContext.Current.CancellationToken);
        Assert.True(allowed.IsSuccessStatusCode);
        Assert.Equal("https://a.example", Header(allowed, "Access-Control-Allow-Origin"));
        Assert.Equal("x-api-key,content-type", Header(allowed, "Access-Control-Allow-Headers"));
        Assert.Contains("POST", Header(allowed, "Access-Control-Allow-Methods"));

        // Without a key: an error that the page could not read would be a riddle.
        using var sent = new HttpRequestMessage(HttpMethod.Get, "/events");
        sent.Headers.Add("Origin", "https://a.example");
        using var refused = await browser.SendAsync(sent, TestContext.Current.CancellationToken);
        Assert.Equal(401, (int)refused.StatusCode);
        Assert.Equal("https://a.example", Header(refused, "Access-Control-Allow-Origin"));
        Assert.Contains("X-Correlation-ID", Header(refused, "Access-Control-Expose-Headers"));
    }

    /// <summary>The origin that the answer names; null for none.</summary>
    private static async Task<string?> AllowedAsync(ApiHost host, string origin)
    {
        using var browser = new HttpClient { BaseAddress = host.Address };
        using var request = new HttpRequestMessage(HttpMethod.Get, "/");
        request.Headers.Add("Origin", origin);
        using var answer = await browser.SendAsync(request, TestContext.Current.CancellationToken);
        return Header(answer, "Access-Control-Allow-Origin");
    }

    private static string? Header(HttpResponseMessage answer, string name) =>
        answer.Headers.TryGetValues(name, out var values) ? string.Join(",", values) : null;
}
