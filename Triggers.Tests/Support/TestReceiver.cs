using System.Collections.Concurrent;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace Triggers.Tests.Support;

/// <summary>A webhook that came.</summary>
internal sealed record ReceivedWebhook(string Path, IReadOnlyDictionary<string, string> Headers, byte[] Body)
{
    public string EventId => Headers["webhook-id"];

    public int Attempt => int.Parse(Headers["triggers-attempt"]);
}

/// <summary>A receiver on a real socket. It keeps what comes, and answers as it is told: by default 200.</summary>
internal sealed class TestReceiver : IAsyncDisposable
{
    private readonly WebApplication _app;
    private readonly ConcurrentQueue<ReceivedWebhook> _received = new();

    private TestReceiver(WebApplication app) => _app = app;

    public string Url => _app.Urls.First();

    public IReadOnlyCollection<ReceivedWebhook> Received => _received;

    /// <summary>How to answer; set before anything is sent, or while it runs.</summary>
    public Func<ReceivedWebhook, HttpContext, Task> Respond { get; set; } = (_, _) => Task.CompletedTask;

    public IEnumerable<ReceivedWebhook> At(string path) => _received.Where(w => w.Path == path);

    public static async Task<TestReceiver> StartAsync()
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        var app = builder.Build();
        var receiver = new TestReceiver(app);
        app.Run(receiver.ReceiveAsync);
        await app.StartAsync();
        return receiver;
    }

    private async Task ReceiveAsync(HttpContext context)
    {
        using var body = new MemoryStream();
        await context.Request.Body.CopyToAsync(body);
        var webhook = new ReceivedWebhook(
            context.Request.Path,
            context.Request.Headers.ToDictionary(h => h.Key, h => h.Value.ToString(), StringComparer.OrdinalIgnoreCase), body.ToArray());
        _received.Enqueue(webhook);
        await Respond(webhook, context);
    }

    public ValueTask DisposeAsync() => _app.DisposeAsync();
}
