using Triggers.Api.ApiKeys;
using Triggers.Api.Auth;
using Triggers.Api.Configuration;
using Triggers.Api.DeadLetters;
using Triggers.Api.Deliveries;
using Triggers.Api.Events;
using Triggers.Api.EventTypes;
using Triggers.Api.Health;
using Triggers.Api.Hooks;
using Triggers.Api.Http;
using Triggers.Api.Idempotency;
using Triggers.Api.Inbox;
using Triggers.Api.Ingest;
using Triggers.Api.OpenApi;
using Triggers.Api.Operations;
using Triggers.Api.Replays;
using Triggers.Api.Setup;
using Triggers.Api.Subscriptions;
using Triggers.Api.Tenants;
using Triggers.Api.UsagePlans;
using Triggers.ServiceDefaults;

// Of a Postgres that hangs every cancelled statement keeps a thread for a second or two: as many as the pool has connections.
ThreadPool.GetMinThreads(out var workers, out var ports);
ThreadPool.SetMinThreads(Math.Max(workers, 64), ports);

var builder = WebApplication.CreateBuilder(args);
builder.WebHost.ConfigureKestrel(kestrel =>
{
    kestrel.AddServerHeader = false;
    // What a connection holds of a body that nobody reads yet; what is read is counted in BodyMemory.
    kestrel.Limits.MaxRequestBufferSize = 128 * 1024;
});
builder.AddServiceDefaults(ApiServices.PoolDefaults);
builder.AddEventLog();
builder.Services.AddKeys();
builder.AddRedis();
builder.Services.AddFeatures(builder.Configuration);
builder.Services.AddJson();
builder.Services.AddProblems();
builder.Services.AddContract();
builder.AddOrigins();

var app = builder.Build();
if (Migration.IsAskedFor(args))
    return await Migration.RunAsync(app.Services);

app.Use(next => app.Services.GetRequiredService<WarmUp>().Use(next));
app.UseForwardedHeaders();
app.UseMiddleware<Correlation>();
app.Use(Head.AsGetAsync);
app.UseProblems();
app.Use(Deadline.BoundAsync);
app.UseRouting();
app.UseOrigins();
app.UseAuthorization();
app.UseMiddleware<IdempotencyKey>();

app.MapLiveAndReady();
var api = app.MapGroup("").AddEndpointFilter(Deadline.EndBeforeAnswerAsync).AddEndpointFilter(QueryNames.CheckAsync);
api.MapService();
api.MapHealth();
api.MapIngest();
api.MapEvents();
api.MapInbox();
api.MapHooks();
api.MapInboxes();
api.MapLeases();
api.MapSubscriptions();
api.MapDeliveries();
api.MapDeadLetters();
api.MapReplays();
api.MapReplayJobs();
api.MapEventTypes();
api.MapConfiguration();
api.MapTenants();
api.MapApiKeys();
api.MapUsagePlans();
app.MapContract();

return await app.RunServiceAsync();
