using Triggers.Api;
using Triggers.Api.Auth;
using Triggers.Api.Deliveries;
using Triggers.Api.Errors;
using Triggers.Api.Events;
using Triggers.Api.Ingest;
using Triggers.Api.Requests;
using Triggers.Api.Setup;
using Triggers.Api.Subscriptions;
using Triggers.ServiceDefaults;

var builder = WebApplication.CreateBuilder(args);
builder.AddServiceDefaults();
builder.Services.AddApiStorage();
builder.Services.AddEventLog();
builder.Services.AddKeys();
builder.Services.AddJson();
builder.Services.AddSingleton<ApiMetrics>();
builder.Services.AddSingleton<EventReader>();

var app = builder.Build();
if (Migration.IsAskedFor(args))
    return await Migration.RunAsync(app.Services);

app.UseMiddleware<Correlation>();
app.UseMiddleware<Problems>();
app.UseRouting();
app.UseMiddleware<Authentication>();
app.UseMiddleware<IdempotencyKey>();

app.MapLiveAndReady();
app.MapIngest();
app.MapEvents();
app.MapSubscriptions();
app.MapDeliveries();

return await app.RunServiceAsync();
