using System.Collections.Concurrent;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Microsoft.Extensions.Logging;

namespace Triggers.Tests.Delivery.Attempts;

/// <summary>A receiver that is asked over TLS, and by which certificate.</summary>
/// <param name="Connection">Which connection it came on.</param>
/// <param name="Thumbprint">The client's certificate; null without one.</param>
internal sealed record SecureRequest(string Connection, string? Thumbprint);

/// <summary>A receiver on Kestrel that wants to see a certificate of its callers, or leaves it to them.</summary>
internal sealed class SecureReceiver : IAsyncDisposable
{
    private readonly WebApplication _app;
    private readonly ConcurrentQueue<SecureRequest> _requests = new();

    private SecureReceiver(WebApplication app) => _app = app;

    public string Url => _app.Urls.First();

    public IReadOnlyCollection<SecureRequest> Requests => _requests;

    /// <summary>Starts one.</summary>
    /// <param name="mode">Whether callers need a certificate.</param>
    /// <param name="known">Thumbprints of those it knows; any other is refused in the handshake.</param>
    /// <param name="certificate">Its own.</param>
    public static async Task<SecureReceiver> StartAsync(
        ClientCertificateMode mode, string[] known, X509Certificate2? certificate = null)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseKestrelHttpsConfiguration();
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Listen(System.Net.IPAddress.Loopback, 0, listen => listen.UseHttps(https =>
        {
            https.ServerCertificate = certificate ?? Certificates.Good;
            https.ClientCertificateMode = mode;
            https.ClientCertificateValidation = (client, _, _) => known.Contains(Certificates.Sha256(client));
        })));
        var app = builder.Build();
        var receiver = new SecureReceiver(app);
        app.Run(context =>
        {
            receiver._requests.Enqueue(new(
                context.Connection.Id, context.Connection.ClientCertificate is { } client ? Certificates.Sha256(client) : null));
            context.Response.StatusCode = StatusCodes.Status204NoContent;
            return Task.CompletedTask;
        });
        await app.StartAsync();
        return receiver;
    }

    public ValueTask DisposeAsync() => _app.DisposeAsync();
}
