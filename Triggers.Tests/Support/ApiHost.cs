using System.Net.Http.Headers;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Mvc.Testing;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Npgsql;
using Triggers.Api;
using Triggers.Api.Http;
using Triggers.Core;

namespace Triggers.Tests.Support;

/// <summary>Triggers.Api inside this process, on a real socket.</summary>
internal sealed class ApiHost : WebApplicationFactory<ApiMarker>
{
    public const string AdminKey = "admin-key-of-the-tests";
    private readonly (string Key, string Value)[] _settings;
    private readonly ILoggerProvider? _logs;
    private int _underWay;

    public ApiHost(string connectionString, params (string Key, string Value)[] settings) : this(connectionString, null, settings)
    {
    }

    public ApiHost(string connectionString, ILoggerProvider? logs, params (string Key, string Value)[] settings)
    {
        _logs = logs;
        _settings =
        [
            ("ConnectionStrings:triggersdb", connectionString),
            ("Auth:BootstrapAdminKey", AdminKey), ("Shutdown:Delay", "00:00:00"), .. settings,
        ];
        UseKestrel();
        StartServer();
    }

    /// <summary>Where it listens.</summary>
    public Uri Address => ClientOptions.BaseAddress;

    /// <summary>What stands before the statements of its requests.</summary>
    public StatementGate Statements { get; } = new();

    /// <summary>How many requests it works on.</summary>
    public int RequestsUnderWay => _underWay;

    /// <summary>A client with a key; without one for null.</summary>
    public ApiClient Client(string? key = AdminKey) => new(Address, key);

    protected override void ConfigureWebHost(IWebHostBuilder builder)
    {
        builder.ConfigureServices(services => services.AddSingleton<IStartupFilter>(new Counting(this))
            .ConfigureDbContext<TriggersDbContext>(options => options.AddInterceptors(Statements)));
        if (_logs is not null)
            builder.ConfigureLogging(logging => logging.AddProvider(_logs));
        // A port given to UseKestrel is set on the built server, in a race with its start.
        builder.UseSetting("urls", "http://127.0.0.1:0");
        foreach (var (key, value) in _settings)
            builder.UseSetting(key, value);
    }

    private sealed class Counting(ApiHost host) : IStartupFilter
    {
        public Action<IApplicationBuilder> Configure(Action<IApplicationBuilder> next) => app =>
        {
            app.Use(async (HttpContext _, RequestDelegate rest) =>
            {
                Interlocked.Increment(ref host._underWay);
                try
                {
                    await rest(_);
                }
                finally
                {
                    Interlocked.Decrement(ref host._underWay);
                }
            });
            next(app);
        };
    }
}

/// <summary>Speaks to the API as its users do.</summary>
internal sealed class ApiClient : IDisposable
{
    private readonly HttpClient _http;

    public ApiClient(Uri address, string? key)
    {
        // As clients in the wild do; what the server makes of it is what is tested.
        var handler = new SocketsHttpHandler { RequestHeaderEncodingSelector = (_, _) => Encoding.UTF8 };
        _http = new HttpClient(new ContractHandler(handler)) { BaseAddress = address, Timeout = TimeSpan.FromSeconds(60) };
        if (key is not null)
            _http.DefaultRequestHeaders.Add("X-API-Key", key);
    }

    public Task<Answer> GetAsync(string path) => SendAsync(HttpMethod.Get, path, null);

    public Task<Answer> PostAsync(string path, string? json = null, params (string Name, string Value)[] headers) =>
        SendAsync(HttpMethod.Post, path, json, headers);

    public Task<Answer> PatchAsync(string path, string json) => SendAsync(HttpMethod.Patch, path, json);

    public Task<Answer> DeleteAsync(string path) => SendAsync(HttpMethod.Delete, path, null);

    public async Task<Answer> SendAsync(HttpMethod method, string path, string? json, params (string Name, string Value)[] headers)
    {
        using var request = new HttpRequestMessage(method, path);
        if (json is not null)
            request.Content = new ByteArrayContent(
                Encoding.UTF8.GetBytes(json))
            { Headers = { ContentType = new MediaTypeHeaderValue("application/json") } };
        foreach (var (name, value) in headers)
            request.Headers.TryAddWithoutValidation(name, value);
        return await SendAsync(request);
    }

    public async Task<Answer> SendAsync(HttpRequestMessage request)
    {
        using var response = await _http.SendAsync(request, TestContext.Current.CancellationToken);
        var text = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        return new Answer(
            (int)response.StatusCode,
            text,
            response.Content.Headers.ContentType?.MediaType,
            response.Headers.Concat(response.Content.Headers)
                .ToDictionary(h => h.Key, h => string.Join(",", h.Value), StringComparer.OrdinalIgnoreCase));
    }

    /// <summary>Waits until the API is ready.</summary>
    public Task WaitUntilReadyAsync() => Wait.UntilAsync("the API is ready", async () => (await GetAsync("/health/ready")).Status == 200);

    /// <summary>Publishes an event, and answers its id.</summary>
    public async Task<string> PublishAsync(string type = "order.created", string data = "1", string more = "")
    {
        var answer = await PostAsync("/events", $$"""{"type":"{{type}}","data":{{data}}{{more}}}""");
        Assert.Equal(202, answer.Status);
        return answer.Id;
    }

    /// <summary>Subscribes, and answers the id.</summary>
    public async Task<string> SubscribeAsync(string eventTypes = "\"*\"", string url = "https://receiver.example/hooks")
    {
        var answer = await PostAsync("/subscriptions", $$"""{"url":"{{url}}","eventTypes":[{{eventTypes}}]}""");
        Assert.Equal(201, answer.Status);
        return answer.Id;
    }

    public void Dispose() => _http.Dispose();
}

/// <summary>What the API answered.</summary>
internal sealed record Answer(int Status, string Text, string? ContentType, IReadOnlyDictionary<string, string> Headers)
{
    /// <summary>The body, which must be JSON.</summary>
    public JsonNode Json => JsonNode.Parse(Text)!;

    public string Id => Json["id"]!.GetValue<string>();

    /// <summary>The ids of a list.</summary>
    public string[] Ids => [.. Json["items"]!.AsArray().Select(item => item!["id"]!.GetValue<string>())];

    public string? NextCursor => Json["nextCursor"]?.GetValue<string>();

    public string? this[string member] => Json[member]?.ToString();

    /// <summary>The pointers of a problem's errors.</summary>
    public string[] Pointers => [.. Json["errors"]!.AsArray().Select(e => e!["pointer"]!.GetValue<string>())];

    /// <summary>Makes sure that this is the error, in the shape that every error has.</summary>
    public Answer IsProblem(int status, string code)
    {
        Assert.True(Status == status, $"{Status} instead of {status}: {Text}");
        Assert.Equal("application/problem+json", ContentType);
        Assert.Equal(code, this["code"]);
        Assert.Equal(status, Json["status"]!.GetValue<int>());
        Assert.NotEmpty(this["title"]!);
        Assert.NotEmpty(this["detail"]!);
        Assert.NotEmpty(this["traceId"]!);
        Assert.Equal(Headers["X-Correlation-ID"], this["correlationId"]);
        Assert.NotNull(Json["errors"]);
        Assert.DoesNotContain("   at ", Text);
        return this;
    }

    /// <summary>Makes sure that it went well.</summary>
    public Answer Is(int status)
    {
        Assert.True(Status == status, $"{Status} instead of {status}: {Text}");
        return this;
    }
}

/// <summary>The API over a database of its own, for the tests of a class.</summary>
public class ApiFixture(PostgresServer postgres) : IAsyncLifetime
{
    private ApiHost? _host;
    private NpgsqlDataSource? _dataSource;
    private int _tenants;

    internal ApiHost Host => _host!;

    internal NpgsqlDataSource DataSource => _dataSource!;

    internal string ConnectionString { get; private set; } = "";

    /// <summary>The rows that the delivery service would have made.</summary>
    internal Rows Rows { get; private set; } = null!;

    /// <summary>Settings of the API beside the database.</summary>
    private protected virtual Task<(string Key, string Value)[]> SettingsAsync() => Task.FromResult<(string, string)[]>([]);

    /// <summary>The same, for another process of the API.</summary>
    internal Task<(string Key, string Value)[]> OtherSettingsAsync() => SettingsAsync();

    /// <summary>Ends when everything accepted so far can be read.</summary>
    internal virtual Task CaughtUpAsync() => Task.CompletedTask;

    public virtual async ValueTask InitializeAsync()
    {
        ConnectionString = await postgres.CreateMigratedDatabaseAsync();
        _dataSource = Storage.Builder(ConnectionString, "tests").Build();
        Rows = new Rows(_dataSource);
        _host = new ApiHost(ConnectionString, await SettingsAsync());
        using var client = _host.Client(null);
        await Wait.UntilAsync("the API is ready", async () => (await client.GetAsync("/health/ready")).Status == 200);
    }

    internal TriggersDbContext Db()
    {
        var options = new DbContextOptionsBuilder<TriggersDbContext>();
        options.UseTriggers(DataSource);
        return new TriggersDbContext(options.Options);
    }

    /// <summary>A tenant that no other test knows, and a key of it; all scopes of a tenant unless some are named.</summary>
    internal async Task<TestTenant> NewTenantAsync(params string[] scopes)
    {
        using var admin = Host.Client();
        var tenant = (await admin.PostAsync("/tenants", $$"""{"name":"tenant-{{Interlocked.Increment(ref _tenants)}}"}""")).Is(201);
        return new TestTenant(tenant.Id, Host.Client(await NewKeyAsync(tenant.Id, scopes)));
    }

    /// <summary>The secret of a new key.</summary>
    internal async Task<string> NewKeyAsync(string tenantId, params string[] scopes)
    {
        using var admin = Host.Client();
        string[] all = ["events:write", "events:read", "inbox:read", "inbox:write",
            "subscriptions:write", "subscriptions:read", "event_types:write", "event_types:read", "keys:write", "tenant:admin"];
        var list = string.Join(",", (scopes.Length == 0 ? all : scopes).Select(s => $"\"{s}\""));
        return (await admin.PostAsync("/api-keys", $$"""{"name":"test","scopes":[{{list}}],"tenantId":"{{tenantId}}"}"""))
            .Is(201)["secret"]!;
    }

    public virtual async ValueTask DisposeAsync()
    {
        if (_host is not null)
            await _host.DisposeAsync();
        if (_dataSource is not null)
            await _dataSource.DisposeAsync();
    }
}

/// <summary>A tenant of one test.</summary>
internal sealed record TestTenant(string Id, ApiClient Client)
{
    public Guid Key => TypeId.TryParse(TypeId.Tenant, Id, out var id) ? id : throw new FormatException(Id);
}
