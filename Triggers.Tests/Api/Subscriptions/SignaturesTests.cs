using System.Security.Cryptography.X509Certificates;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Core.Subscriptions;
using Triggers.ServiceDefaults;
using Triggers.Tests.Delivery.Attempts;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Subscriptions;

/// <summary>What a subscription is signed with, and authenticated by.</summary>
public sealed class SignaturesTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task AKey_pair_is_made_its_public_key_published_and_its_private_key_never_shown()
    {
        var client = (await api.NewTenantAsync()).Client;
        using var stranger = api.Host.Client(null);

        var made = (await client.PostAsync("/subscriptions", """{"url":"https://a.example","eventTypes":["*"],"signatures":["v1a"]}"""))
            .Is(201);

        Assert.Null(made["secret"]);
        Assert.StartsWith(SigningKey.PublicPrefix, made["publicKey"]);
        Assert.Equal("""["v1a"]""", made.Json["signatures"]!.ToJsonString());
        Assert.DoesNotContain(SigningKey.Prefix, (await client.GetAsync($"/subscriptions/{made.Id}")).Is(200).Text);
        var keys = (await stranger.GetAsync($"/.well-known/webhooks-keys?subscriptionId={made.Id}")).Is(200);
        Assert.Equal([made["publicKey"]!], Keys(keys));
        Assert.Equal("public, max-age=300", keys.Headers["Cache-Control"]);

        var rotated = (await client.PostAsync($"/subscriptions/{made.Id}/secret/rotate", """{"type":"v1a"}""")).Is(200);
        Assert.Null(rotated["secret"]);
        Assert.NotEqual(made["publicKey"], rotated["publicKey"]);
        Assert.Equal([rotated["publicKey"]!, made["publicKey"]!],
            Keys((await stranger.GetAsync($"/.well-known/webhooks-keys?subscriptionId={made.Id}")).Is(200)));

        (await client.PostAsync($"/subscriptions/{made.Id}/secret/rotate", """{"type":"v1a","overlap":"00:00:00"}""")).Is(200);
        Assert.Single(Keys((await stranger.GetAsync($"/.well-known/webhooks-keys?subscriptionId={made.Id}")).Is(200)));
        (await client.DeleteAsync($"/subscriptions/{made.Id}")).Is(204);
        Assert.Empty(Keys((await stranger.GetAsync($"/.well-known/webhooks-keys?subscriptionId={made.Id}")).Is(200)));
        (await stranger.GetAsync("/.well-known/webhooks-keys")).IsProblem(400, "invalid_request");
        (await stranger.GetAsync("/.well-known/webhooks-keys?subscriptionId=x")).IsProblem(400, "invalid_request");
    }

    [Fact]
    public async Task Secrets_of_one_kind_are_rotated_and_those_of_the_other_stay()
    {
        var client = (await api.NewTenantAsync()).Client;
        var made = (await client.PostAsync("/subscriptions", """{"url":"https://a.example","eventTypes":["*"]}""")).Is(201);

        var added = (await client.PostAsync($"/subscriptions/{made.Id}/secret/rotate", """{"type":"v1a"}""")).Is(200);
        Assert.Null(added["previousExpiresAt"]);
        (await client.PostAsync($"/subscriptions/{made.Id}/secret/rotate", """{"overlap":"00:00:00"}""")).Is(200);

        var read = (await client.GetAsync($"/subscriptions/{made.Id}")).Is(200);
        Assert.Equal("""["v1","v1a"]""", read.Json["signatures"]!.ToJsonString());
        Assert.Equal(added["publicKey"], read["publicKey"]);
    }

    [Fact]
    public async Task APrivate_key_can_be_brought()
    {
        var client = (await api.NewTenantAsync()).Client;
        var key = SigningKey.New();
        Assert.True(SigningKey.TryGetPublic(key, out var publicKey));

        var made = (await client.PostAsync("/subscriptions", $$"""{"url":"https://a.example","eventTypes":["*"],"secret":"{{key}}"}"""))
            .Is(201);

        Assert.Equal((null, publicKey), (made["secret"], made["publicKey"]));
        Assert.Equal(["/secret"], (await client.PostAsync("/subscriptions",
            $$"""{"url":"https://a.example","eventTypes":["*"],"signatures":["v1"],"secret":"{{key}}"}""")).IsProblem(400, "invalid_request")
            .Pointers);
    }

    [Fact]
    public async Task Authentication_is_shown_without_its_secrets_replaced_as_a_whole_and_removed()
    {
        var client = (await api.NewTenantAsync()).Client;
        var made = (await client.PostAsync("/subscriptions",
            """{"url":"https://a.example","eventTypes":["*"],"authentication":{"type":"basic","username":"u","password":"secret-p"}}"""))
            .Is(201);
        AssertAuthentication("""{"type":"basic","username":"u","tokenUrl":null,"clientId":null,"scope":null}""", made);
        Assert.DoesNotContain("secret-p", made.Text);

        var changed = (await client.PatchAsync($"/subscriptions/{made.Id}",
            """{"authentication":{"type":"client_credentials","tokenUrl":"https://t.example/token","clientId":"c","clientSecret":"secret-c","scope":"s"}}"""))
            .Is(200);
        AssertAuthentication(
            """{"type":"client_credentials","username":null,"tokenUrl":"https://t.example/token","clientId":"c","scope":"s"}""", changed);
        Assert.DoesNotContain("secret-c", changed.Text);
        AssertAuthentication(
            """{"type":"client_credentials","username":null,"tokenUrl":"https://t.example/token","clientId":"c","scope":"s"}""",
            (await client.PatchAsync($"/subscriptions/{made.Id}", """{"description":"d"}""")).Is(200));
        Assert.Null((await client.PatchAsync($"/subscriptions/{made.Id}", """{"authentication":null}""")).Is(200).Json["authentication"]);
    }

    [Fact]
    public async Task AClient_certificate_is_shown_without_its_key_replaced_as_a_whole_and_removed()
    {
        var client = (await api.NewTenantAsync()).Client;
        var (first, second) = (Certificates.Client("first"), Certificates.Client("second"));
        var made = (await client.PostAsync("/subscriptions", Body(("clientCertificate", new { pem = first.Pem })))).Is(201);
        AssertShown(first, "first", made);

        using var pair = X509Certificate2.CreateFromPem(second.Pem, second.Pem);
        var pkcs12 = Convert.ToBase64String(pair.Export(X509ContentType.Pkcs12, "p w"));
        var changed = (await client.PatchAsync($"/subscriptions/{made.Id}",
            JsonSerializer.Serialize(new { clientCertificate = new { pkcs12, password = "p w" } }))).Is(200);
        AssertShown(second, "second", changed);
        AssertShown(second, "second", (await client.PatchAsync($"/subscriptions/{made.Id}", """{"description":"d"}""")).Is(200));
        AssertShown(second, "second", (await client.GetAsync($"/subscriptions/{made.Id}")).Is(200));

        Assert.Equal(["/url"], (await client.PatchAsync($"/subscriptions/{made.Id}", """{"url":"http://a.example"}"""))
            .IsProblem(400, "invalid_request").Pointers);
        Assert.Null((await client.PatchAsync($"/subscriptions/{made.Id}", """{"clientCertificate":null}""")).Is(200)
            .Json["clientCertificate"]);

        static void AssertShown((string Pem, string Thumbprint) certificate, string name, Answer answer)
        {
            var shown = answer.Json["clientCertificate"]!;
            Assert.Equal(
                ($"CN={name}", "CN=Root", certificate.Thumbprint, false),
                (shown["subject"]!.ToString(), shown["issuer"]!.ToString(), shown["thumbprint"]!.ToString(),
                    shown["expired"]!.GetValue<bool>()));
            Assert.Equal(5, shown.AsObject().Count);
            Assert.DoesNotContain("PRIVATE", answer.Text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task AClient_certificate_that_has_expired_is_not_taken_and_one_that_has_since_is_shown_as_that()
    {
        var tenant = await api.NewTenantAsync();
        var (now, protector) = (TimeProvider.System.GetUtcNow(), api.Host.Services.GetRequiredService<SecretProtector>());
        var (pem, _) = Certificates.Client("old", now.AddDays(-3), now.AddDays(-1));
        Assert.Equal(["/clientCertificate"], (await tenant.Client.PostAsync("/subscriptions", Body(("clientCertificate", new { pem }))))
            .IsProblem(400, "invalid_request").Pointers);
        var made = (await tenant.Client.PostAsync(
            "/subscriptions", Body(("clientCertificate", new { pem = Certificates.Client("young").Pem })))).Is(201);

        await api.Rows.ExecuteAsync(
            $"UPDATE subscriptions SET client_certificate = '{protector.Protect(pem)}' WHERE id = '{Rows.Uuid(made.Id)}'");

        Assert.True((await tenant.Client.GetAsync($"/subscriptions/{made.Id}")).Is(200)
            .Json["clientCertificate"]!["expired"]!.GetValue<bool>());
    }

    [Theory]
    [InlineData("""{}""", "/clientCertificate")]
    [InlineData("""{"pem":"x","pkcs12":"eA=="}""", "/clientCertificate /clientCertificate/pem /clientCertificate/pkcs12")]
    [InlineData("""{"pem":"x","password":"p"}""", "/clientCertificate/password /clientCertificate/pem")]
    [InlineData("""{"pem":""}""", "/clientCertificate/pem")]
    [InlineData("""{"pkcs12":"x"}""", "/clientCertificate/pkcs12")]
    [InlineData("""{"pkcs12":"eA=="}""", "/clientCertificate/pkcs12")]
    public async Task What_is_no_client_certificate_is_refused_with_its_place(string certificate, string places)
    {
        var client = (await api.NewTenantAsync()).Client;

        var refused = (await client.PostAsync("/subscriptions", Body(("clientCertificate", JsonNode.Parse(certificate)!))))
            .IsProblem(400, "invalid_request");

        Assert.Equal(places.Split(' '), refused.Pointers.Order());
    }

    [Fact]
    public async Task AClient_certificate_goes_with_https_only()
    {
        var client = (await api.NewTenantAsync()).Client;
        var certificate = new { pem = Certificates.Client("mine").Pem };

        Assert.Equal(["/clientCertificate"],
            (await client.PostAsync("/subscriptions", Body(("url", "http://a.example"), ("clientCertificate", certificate))))
            .IsProblem(400, "invalid_request").Pointers);
    }

    private static string Body(params (string Name, object Value)[] more)
    {
        var body = new Dictionary<string, object> { ["url"] = "https://a.example", ["eventTypes"] = new[] { "*" } };
        foreach (var (name, value) in more)
            body[name] = value;
        return JsonSerializer.Serialize(body);
    }

    [Theory]
    [InlineData("""{"username":"u"}""", "/authentication/type")]
    [InlineData("""{"type":"basic","username":"u"}""", "/authentication/password")]
    [InlineData("""{"type":"basic","username":"u:v","password":"p"}""", "/authentication/username")]
    [InlineData("""{"type":"bearer","token":"a b"}""", "/authentication/token")]
    [InlineData("""{"type":"bearer","token":"a","scope":"s"}""", "/authentication/scope")]
    [InlineData("""{"type":"client_credentials","tokenUrl":"ftp://t","clientId":"c","clientSecret":"s"}""", "/authentication/tokenUrl")]
    [InlineData("""{"type":"digest"}""", "/authentication/type")]
    public async Task A_mistake_is_named_with_its_place(string authentication, string place)
    {
        var client = (await api.NewTenantAsync()).Client;

        Assert.Equal([place], (await client.PostAsync("/subscriptions",
            $$"""{"url":"https://a.example","eventTypes":["*"],"authentication":{{authentication}}}""")).IsProblem(400, "invalid_request")
            .Pointers);
    }

    private static string[] Keys(Answer answer) =>
        [.. answer.Json["keys"]!.AsArray().Select(key => key!["publicKey"]!.GetValue<string>())];

    private static void AssertAuthentication(string expected, Answer answer) =>
        Assert.True(JsonNode.DeepEquals(JsonNode.Parse(expected), answer.Json["authentication"]), answer.Text);
}
