using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Subscriptions;

public sealed class HeaderValuesTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task Readers_see_which_headers_there_are_and_writers_what_they_say()
    {
        var tenant = await api.NewTenantAsync();
        const string body =
            """{"url":"https://receiver.example/","eventTypes":["*"],"headers":{"Authorization":"Bearer hush","x-team":"a"}}""";
        var made = (await tenant.Client.PostAsync("/subscriptions", body)).Is(201);
        using var reader = api.Host.Client(await api.NewKeyAsync(tenant.Id, "subscriptions:read"));
        using var writer = api.Host.Client(await api.NewKeyAsync(tenant.Id, "subscriptions:read", "subscriptions:write"));

        foreach (var path in new[] { $"/subscriptions/{made.Id}", "/subscriptions" })
        {
            var read = (await reader.GetAsync(path)).Is(200).Text;
            Assert.DoesNotContain("hush", read);
            Assert.Contains("\"Authorization\":\"***\"", read);
            Assert.Contains("\"x-team\":\"***\"", read);
            Assert.Contains("Bearer hush", (await writer.GetAsync(path)).Is(200).Text);
        }
        Assert.Contains("Bearer hush", (await writer.PatchAsync($"/subscriptions/{made.Id}", """{"description":"d"}""")).Is(200).Text);
    }

    [Fact]
    public async Task What_readers_see_in_place_of_a_value_is_not_taken_for_one()
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.SubscribeAsync();

        Assert.Equal(["/headers/Authorization"], (await tenant.Client.PatchAsync(
            $"/subscriptions/{id}", """{"headers":{"Authorization":"***"}}""")).IsProblem(400, "invalid_request").Pointers);
    }
}
