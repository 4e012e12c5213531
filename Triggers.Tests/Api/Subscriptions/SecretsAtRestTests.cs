using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.ServiceDefaults;
using Triggers.Tests.Delivery.Attempts;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Subscriptions;

/// <summary>What the database knows of secrets, and that the delivery service still knows them.</summary>
public sealed class SecretsAtRestTests(PostgresServer postgres) : ApiFixture(postgres)
{
    private const string Own = "whsec_VGhpc0lzQVZlcnlTZWNyZXRTZWNyZXRPZk91cnM0Mg==";
    private const string Header = "header-value-nobody-may-read";
    private const string Password = "password-nobody-may-read";
    private const string FilePassword = "file-password-nobody-may-read";
    private const string ClientSecret = "client-secret-nobody-may-read";
    private readonly List<string> _files = [];
    private string? _certificate;

    private protected override Task<(string Key, string Value)[]> SettingsAsync()
    {
        _certificate = NewCertificate();
        return Task.FromResult<(string, string)[]>([("Protection:Certificates", _certificate)]);
    }

    private string NewCertificate()
    {
        using var key = RSA.Create(2048);
        var now = TimeProvider.System.GetUtcNow();
        using var certificate = new CertificateRequest("CN=triggers", key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1)
            .CreateSelfSigned(now.AddDays(-1), now.AddDays(1));
        var file = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName() + ".pem");
        File.WriteAllText(file, certificate.ExportCertificatePem() + "\n" + key.ExportPkcs8PrivateKeyPem());
        _files.Add(file);
        return file;
    }

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        _files.ForEach(File.Delete);
    }

    [Fact]
    public async Task A_dump_has_none_of_the_secrets_nor_what_decrypts_them_and_webhooks_have_them_all()
    {
        await using var receiver = await TestReceiver.StartAsync();
        var tenant = await NewTenantAsync();
        var made = (await tenant.Client.PostAsync("/subscriptions",
            $$$"""{"url":"{{{receiver.Url}}}/hook","eventTypes":["*"],"secret":"{{{Own}}}","signatures":["v1","v1a"],"headers":{"X-Key":"{{{Header}}}"},"authentication":{"type":"basic","username":"u","password":"{{{Password}}}"}}""",
            ("Idempotency-Key", "once"))).Is(201);
        var rotated = (await tenant.Client.PostAsync($"/subscriptions/{made.Id}/secret/rotate")).Is(200);
        (await tenant.Client.PostAsync("/subscriptions",
            $$$"""{"url":"{{{receiver.Url}}}/other","eventTypes":["never"],"authentication":{"type":"client_credentials","tokenUrl":"https://t.example","clientId":"c","clientSecret":"{{{ClientSecret}}}"}}"""))
            .Is(201);

        // A line of the key's text, and all that came with it.
        var (pem, _) = Certificates.Client("mine");
        using var pair = X509Certificate2.CreateFromPem(pem, pem);
        var pkcs12 = Convert.ToBase64String(pair.Export(X509ContentType.Pkcs12, FilePassword));
        (await tenant.Client.PostAsync("/subscriptions", JsonSerializer.Serialize(new
        {
            url = "https://pem.example",
            eventTypes = new[] { "never" },
            clientCertificate = new { pem },
        }), ("Idempotency-Key", "pem"))).Is(201);
        (await tenant.Client.PostAsync("/subscriptions", JsonSerializer.Serialize(new
        {
            url = "https://pfx.example",
            eventTypes = new[] { "never" },
            clientCertificate = new { pkcs12, password = FilePassword },
        }), ("Idempotency-Key", "pfx"))).Is(201);
        var keyLine = pair.GetECDsaPrivateKey()!.ExportPkcs8PrivateKeyPem().Split('\n')[1];

        var dump = await DumpAsync();
        // What is not a secret is there, so it is the database that was looked through.
        Assert.Contains("https://pfx.example", dump, StringComparison.Ordinal);
        Assert.Contains("https://t.example", (await tenant.Client.GetAsync("/subscriptions")).Text, StringComparison.Ordinal);
        Assert.Contains($"{receiver.Url}/hook", dump, StringComparison.Ordinal);
        Assert.Contains(made["publicKey"]!, dump, StringComparison.Ordinal);
        foreach (var secret in new[]
        {
            Own, rotated["secret"]!, Header, Password, ClientSecret, "whsk_", keyLine, "PRIVATE KEY", pkcs12, FilePassword,
        })
        {
            var bytes = Encoding.UTF8.GetBytes(secret.StartsWith("whsec_", StringComparison.Ordinal) ? secret["whsec_".Length..] : secret);
            string[] forms = [Encoding.UTF8.GetString(bytes), Convert.ToHexStringLower(bytes), Convert.ToBase64String(bytes)];
            foreach (var form in forms)
                Assert.DoesNotContain(form, dump, StringComparison.Ordinal);
        }
        // The keys of what is encrypted are there, and encrypted by the certificate.
        Assert.Contains("EncryptedXmlDecryptor", dump, StringComparison.Ordinal);
        Assert.DoesNotContain("<value>", dump, StringComparison.Ordinal);

        await using var delivery = StartDelivery(_certificate!);
        await tenant.Client.PublishAsync();
        await Wait.UntilAsync("the webhook came", () => receiver.Received.Count == 1);
        var webhook = receiver.Received.Single();
        Assert.Equal(Header, webhook.Headers["X-Key"]);
        Assert.Equal($"Basic {Convert.ToBase64String(Encoding.UTF8.GetBytes("u:" + Password))}", webhook.Headers["Authorization"]);
        var signatures = webhook.Headers["webhook-signature"].Split(' ');
        byte[] message = [.. Encoding.UTF8.GetBytes($"{webhook.EventId}.{webhook.Headers["webhook-timestamp"]}."), .. webhook.Body];
        string Hmac(string secret) =>
            "v1," + Convert.ToBase64String(HMACSHA256.HashData(Convert.FromBase64String(secret["whsec_".Length..]), message));
        Assert.Equal(3, signatures.Length);
        Assert.Contains(Hmac(Own), signatures);
        Assert.Contains(Hmac(rotated["secret"]!), signatures);
        Assert.Single(signatures, s => s.StartsWith("v1a,", StringComparison.Ordinal));
    }

    [Fact]
    public async Task What_is_there_from_before_is_encrypted_by_the_migration_and_still_read()
    {
        var tenant = await NewTenantAsync();
        var plain = TypeId.NewGuid();
        await Rows.ExecuteAsync(
            $$$"""
            INSERT INTO subscriptions (id, tenant_id, url, event_types, headers, secrets)
            VALUES ('{{{plain}}}', '{{{tenant.Key}}}', 'https://a.example', '{*}', '{"X-Key":"plain-header"}',
                '[{"Secret":"{{{Own}}}","ExpiresAt":null},{"Secret":"{{{Own}}}","ExpiresAt":"2100-01-01T00:00:00Z"}]')
            """);
        var path = $"/subscriptions/{TypeId.Format(TypeId.Subscription, plain)}";
        Assert.Equal("plain-header", (await tenant.Client.GetAsync(path)).Is(200).Json["headers"]!["X-Key"]!.GetValue<string>());

        var protector = Host.Services.GetRequiredService<SecretProtector>();
        await using (var db = Db())
        {
            Assert.Equal(1, await protector.ProtectAllAsync(db, TestContext.Current.CancellationToken));
            Assert.Equal(0, await protector.ProtectAllAsync(db, TestContext.Current.CancellationToken));
        }

        var dump = await DumpAsync();
        Assert.DoesNotContain("plain-header", dump, StringComparison.Ordinal);
        Assert.DoesNotContain(Own, dump, StringComparison.Ordinal);
        Assert.Equal("plain-header", (await tenant.Client.GetAsync(path)).Is(200).Json["headers"]!["X-Key"]!.GetValue<string>());
        await using var read = Db();
        var kept = read.Subscriptions.Single(s => s.Id == plain).Secrets;
        Assert.Equal([Own, Own], kept.Select(s => protector.Unprotect(s.Secret)));
        Assert.Equal([null, 2100], kept.Select(s => s.ExpiresAt?.Year));
    }

    [Fact]
    public async Task What_a_lost_certificate_protects_is_named_and_can_be_replaced_part_by_part()
    {
        await using var receiver = await TestReceiver.StartAsync();
        var tenant = await NewTenantAsync();
        var key = await NewKeyAsync(tenant.Id);
        const string Authenticated = """{"type":"basic","username":"u","password":"p"}""";
        var body = $$$"""{"name":"plain","url":"{{{receiver.Url}}}","eventTypes":["*"],"signatures":["v1","v1a"],"headers":{"X-Key":"{{{Header}}}"},"authentication":{{{Authenticated}}}}""";
        var plain = (await tenant.Client.PostAsync("/subscriptions", body, ("Idempotency-Key", "once"))).Is(201);
        Assert.Null(plain["unreadable"]);
        var (pem, _) = Certificates.Client("mine");
        var secure = (await tenant.Client.PostAsync("/subscriptions", JsonSerializer.Serialize(new
        {
            name = "secure",
            url = "https://a.example",
            eventTypes = new[] { "never" },
            clientCertificate = new { pem },
            transformation = new { template = "{{ event.id | json }}" },
        }))).Is(201);

        var certificate = NewCertificate();
        await using var host = new ApiHost(ConnectionString, ("Protection:Certificates", certificate));
        using var client = host.Client(key);
        await client.WaitUntilReadyAsync();
        using var reader = host.Client(await NewKeyAsync(tenant.Id, "subscriptions:read"));

        foreach (var seen in new[] { client, reader })
        {
            Assert.Equal(["secret", "headers", "authentication"], Unreadable((await seen.GetAsync($"/subscriptions/{plain.Id}")).Is(200)));
            var shown = (await seen.GetAsync($"/subscriptions/{secure.Id}")).Is(200);
            Assert.Equal(["secret", "clientCertificate", "transformation"], Unreadable(shown));
            Assert.Null(shown["clientCertificate"]);
            Assert.Null(shown["transformation"]);
        }
        var list = (await client.GetAsync("/subscriptions")).Is(200).Json["items"]!.AsArray();
        Assert.Equal("***", list.Single(s => s!["name"]!.ToString() == "plain")!["headers"]!["X-Key"]!.ToString());
        // It is there, so it is not made once more.
        (await client.PostAsync("/subscriptions", body, ("Idempotency-Key", "once"))).IsProblem(409, "idempotency_answer_lost");

        // A document may have been made before, or by now; what it says of secrets that nobody knows is wanted in full.
        var document = (await client.GetAsync("/configuration")).Is(200).Json["subscriptions"]!;
        Assert.Equal("""{"secretRef":"plain.authentication"}""", document["plain"]!["authentication"]!.ToJsonString());
        Assert.Equal("""{"X-Key":{"secretRef":"plain.headers.X-Key"}}""", document["plain"]!["headers"]!.ToJsonString());
        Assert.Equal("""{"secretRef":"secure.clientCertificate"}""", document["secure"]!["clientCertificate"]!.ToJsonString());
        Assert.Equal("""{"secretRef":"secure.transformation"}""", document["secure"]!["transformation"]!.ToJsonString());
        Assert.Equal(
            [
                "/subscriptions/plain/headers/X-Key", "/subscriptions/plain/authentication", "/subscriptions/secure/clientCertificate",
                "/subscriptions/secure/transformation",
            ],
            (await client.PostAsync("/configuration/plan", $$"""{"subscriptions":{{document.ToJsonString()}}}"""))
                .IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(
            ["/subscriptions/secure/clientCertificate/pem"],
            (await client.PostAsync("/configuration/plan",
                """{"subscriptions":{"secure":{"url":"https://a.example","eventTypes":["never"],"clientCertificate":{"pem":{"secretRef":"pem"}}}}}"""))
                .IsProblem(400, "invalid_request").Pointers);

        Assert.Equal(
            ["secret", "authentication"],
            Unreadable((await client.PatchAsync($"/subscriptions/{plain.Id}", """{"headers":{"x-key":"new"}}""")).Is(200)));
        Assert.Equal(
            ["secret"],
            Unreadable((await client.PatchAsync($"/subscriptions/{plain.Id}", $$"""{"authentication":{{Authenticated}}}""")).Is(200)));
        var rotated = (await client.PostAsync($"/subscriptions/{plain.Id}/secret/rotate")).Is(200);
        Assert.Null(rotated["previousExpiresAt"]);
        (await client.PostAsync($"/subscriptions/{plain.Id}/secret/rotate", """{"type":"v1a"}""")).Is(200);
        var whole = (await client.GetAsync($"/subscriptions/{plain.Id}")).Is(200);
        Assert.Null(whole["unreadable"]);
        Assert.Equal(("new", "u"), (whole.Json["headers"]!["x-key"]!.ToString(), whole.Json["authentication"]!["username"]!.ToString()));

        var applied = (await client.PostAsync("/configuration/apply", JsonSerializer.Serialize(new
        {
            subscriptions = new
            {
                secure = new
                {
                    url = "https://a.example",
                    eventTypes = new[] { "never" },
                    clientCertificate = new { pem = new { secretRef = "pem" } },
                    transformation = new { template = "{{ event.id | json }}" },
                    secret = new { secretRef = "signing" },
                },
            },
            secrets = new { pem, signing = Own },
        }))).Is(200);
        Assert.Equal(
            ["clientCertificate ***", "secret ***", "transformation ***"],
            applied.Json["changes"]![0]!["fields"]!.AsArray().Select(f => $"{f!["name"]} {f["before"]}").Order());
        Assert.Null((await client.GetAsync($"/subscriptions/{secure.Id}")).Is(200)["unreadable"]);

        await using var delivery = StartDelivery(certificate);
        await client.PublishAsync();
        await Wait.UntilAsync("the webhook came", () => receiver.Received.Count == 1);
        Assert.Equal("new", receiver.Received.Single().Headers["X-Key"]);
    }

    private static string[] Unreadable(Answer subscription) =>
        [.. subscription.Json["unreadable"]!.AsArray().Select(member => member!.GetValue<string>())];

    private DeliveryHost StartDelivery(string certificate) => new(
    [
        ("ConnectionStrings:triggersdb", ConnectionString), ("Delivery:AllowedNetworks", "127.0.0.0/8"),
        ("Protection:Certificates", certificate), ("Shutdown:Delay", "00:00:00"),
    ], null);

    /// <summary>Every row of every table, as text.</summary>
    private async Task<string> DumpAsync()
    {
        var tables = await Rows.ScalarAsync<string[]>(
            "SELECT array_agg(quote_ident(tablename) ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'");
        var dump = new StringBuilder();
        foreach (var table in tables)
            dump.AppendLine(await Rows.ScalarAsync<string>($"SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM {table} t"));
        return dump.ToString();
    }
}
