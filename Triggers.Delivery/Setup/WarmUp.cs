using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Options;
using Npgsql;
using OpenTelemetry;
using Triggers.Core;
using Triggers.Core.Retries;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Completion;
using Triggers.Delivery.Subscriptions;
using Triggers.Delivery.Workers;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Setup;

/// <summary>
/// Does some dozen times what deliveries do, before this process says that it is ready: the first of them would pay for compiling code and
/// for planning statements. Nothing is written, nothing leaves the process, and nothing depends on its success.
/// </summary>
internal sealed partial class WarmUp(
    IHttpMessageHandlerFactory handlers, AddressGuard guard, AccessTokens tokens, IOptions<DeliveryOptions> options, Payloads payloads,
    EngineDataSource dataSource, WorkerRegistration worker, Completions completions, Readiness readiness,
    IHostApplicationLifetime lifetime, TimeProvider time, ILogger<WarmUp> logger)
    : BackgroundService
{
    private const string ClientName = "warm-up";

    /// <summary>As often as code runs before it is compiled in its last form.</summary>
    private const int Rounds = 40;

    private static readonly TimeSpan s_atMost = TimeSpan.FromSeconds(10);

    private readonly TaskCompletionSource _done = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Adds it, and an HttpClient like that of webhooks, whose every connection is to this process itself.</summary>
    public static void AddTo(IServiceCollection services)
    {
        services.AddClient(ClientName, provider => async (_, cancellationToken) =>
        {
            var own = provider.GetRequiredService<IServer>().Features.GetRequiredFeature<IServerAddressesFeature>().Addresses
                .Select(BindingAddress.Parse).First(address => address.Scheme == Uri.UriSchemeHttp);
            var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
            try
            {
                await socket.ConnectAsync([IPAddress.Loopback, IPAddress.IPv6Loopback], own.Port, cancellationToken);
                return new NetworkStream(socket, ownsSocket: true);
            }
            catch
            {
                socket.Dispose();
                throw;
            }
        });
        services.AddHostedSingleton<WarmUp>();
    }

    public override Task StartAsync(CancellationToken cancellationToken)
    {
        readiness.HoldUntil(_done.Task);
        return base.StartAsync(cancellationToken);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        var started = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var listening = lifetime.ApplicationStarted.Register(started.SetResult);
        await Task.WhenAll(started.Task, worker.Registered).WaitAsync(stoppingToken);
        try
        {
            // Nobody's traces.
            using var untraced = SuppressInstrumentationScope.Begin();
            await Task.WhenAll(SendAsync(stoppingToken), WriteAsync(stoppingToken)).WaitAsync(s_atMost, stoppingToken);
        }
        catch (Exception e) when (!stoppingToken.IsCancellationRequested)
        {
            Log.NotWarm(logger, e.Message);
        }
        _done.TrySetResult();
    }

    /// <summary>Webhooks to this process, which refuses them.</summary>
    private async Task SendAsync(CancellationToken cancellationToken)
    {
        var sender = new WebhookSender(handlers, guard, tokens, options, time, ClientName);
        var receiver = new Subscriber(
            Guid.Empty, Guid.Empty, 1, $"http://{ClientName}.invalid/health/live", [], [],
            [new SigningSecret { Secret = $"whsec_{Convert.ToBase64String(RandomNumberGenerator.GetBytes(32))}" }], Enabled: true);
        for (var i = 0; i < Rounds; i++)
        {
            var e = new StoredEvent(TypeId.NewGuid(), ClientName, null, null, null, null, ClientName, null, "{}"u8.ToArray());
            var delivery = new DueDelivery(
                Guid.Empty, TypeId.NewGuid(), e.Id, receiver.Id, Claim: 1, RetryCount: 0, ReplayOf: null, Test: false,
                time.GetTimestamp(), e.Data.Length);
            using var share = payloads.Hold(Guid.Empty, e, receiver.Format);
            await sender.SendAsync(delivery, share, () => { }, () => { }, receiver, number: 1, activity: null, cancellationToken);
        }
    }

    /// <summary>Claims for no lane, and results of what there is not.</summary>
    private async Task WriteAsync(CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.Pool.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        for (var i = 0; i < Rounds; i++)
        {
            var made = new AttemptMade(
                TypeId.NewGuid(), 1, TimeSpan.Zero, TimeSpan.Zero, AttemptOutcome.Delivered, null, 200, null, null);
            var result = new DeliveryResult(
                Guid.Empty, TypeId.NewGuid(), TypeId.NewGuid(), Guid.Empty, 1, DeliveryStatus.Succeeded, made);
            await using var batch = new NpgsqlBatch(connection, transaction);
            batch.BatchCommands.Add(DeliveryQueue.Claim(false, [], [], [], [], [], worker.Number, options.Value.Lease));
            batch.BatchCommands.Add(DeliveryQueue.Enqueue([], worker.Number, options.Value.Lease));
            batch.BatchCommands.Add(EventState.Receive([]));
            foreach (var command in completions.Write([new Completed(result, time.GetTimestamp())]))
                batch.BatchCommands.Add(command);
            await batch.ExecuteNonQueryAsync(cancellationToken);
        }
        await transaction.RollbackAsync(cancellationToken);
    }

    private static partial class Log
    {
        [LoggerMessage(
            EventId = 1, Level = LogLevel.Warning, Message = "The first deliveries may be slow: warming up ended with {Problem}")]
        public static partial void NotWarm(ILogger logger, string problem);
    }
}
