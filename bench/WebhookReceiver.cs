namespace Triggers.Bench;

/// <summary>
/// A bare receiver on 127.0.0.1: notes the id and answers 204. Also the ceiling: an endpoint that does nothing but answer 202.
/// </summary>
public sealed class WebhookReceiver : IAsyncDisposable
{
    private readonly WebApplication _app;

    private WebhookReceiver(WebApplication app) => _app = app;

    /// <summary>Where it listens, as in <c>http://127.0.0.1:40123</c>.</summary>
    public string Url => _app.Urls.First();

    /// <summary>Starts one.</summary>
    /// <param name="ledger">What arrives is noted here.</param>
    /// <param name="port">0 takes a free one.</param>
    /// <param name="respond">Answers in place of 204, for receivers that hang or fail.</param>
    public static async Task<WebhookReceiver> StartAsync(Ledger ledger, int port = 0, Func<HttpContext, Task>? respond = null)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls($"http://127.0.0.1:{port}");
        var app = builder.Build();
        app.MapPost("/accept", async context =>
        {
            await context.Request.Body.CopyToAsync(Stream.Null);
            context.Response.StatusCode = StatusCodes.Status202Accepted;
        });
        app.MapPost("/hook/{**any}", async context =>
        {
            await context.Request.Body.CopyToAsync(Stream.Null);
            // Requests without it only measure how fast this is.
            if (context.Request.Headers.TryGetValue("webhook-id", out var id))
                ledger.Arrived(id.ToString(), TimeProvider.System.GetUtcNow());
            context.Response.StatusCode = StatusCodes.Status204NoContent;
            if (respond is not null)
                await respond(context);
        });
        await app.StartAsync();
        return new WebhookReceiver(app);
    }

    /// <summary>Stops it.</summary>
    public ValueTask DisposeAsync() => _app.DisposeAsync();
}
