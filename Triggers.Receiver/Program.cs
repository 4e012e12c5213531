using Triggers.Receiver;

var builder = WebApplication.CreateBuilder(args);
builder.LimitBodies();
// The page shows what came; three log lines for each webhook would only slow down a load test.
builder.Logging.AddFilter("Microsoft.AspNetCore", LogLevel.Warning);
builder.Services.AddSingleton(TimeProvider.System);
builder.Services.AddSingleton<Inbox>();

var app = builder.Build();
app.MapHooks();
app.MapGet("/", () => TypedResults.Content(Page.Html, "text/html; charset=utf-8"));
app.MapGet("/health/live", () => TypedResults.Ok(new { status = "healthy" }));
app.MapGet("/health/ready", () => TypedResults.Ok(new { status = "healthy" }));
await app.RunAsync();

/// <summary>Marks this assembly for hosts that start it inside their own process.</summary>
internal sealed class ReceiverMarker;
