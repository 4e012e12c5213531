using Microsoft.Extensions.DependencyInjection;
using Triggers.Core;
using Triggers.EventLog.Kafka;

namespace Triggers.Tests.Support;

/// <summary>
/// The API on the Kafka log, with the delivery service that projects it. Without Kafka it does nothing: its tests are skipped.
/// </summary>
public sealed class KafkaApiFixture(PostgresServer postgres, KafkaServer kafka) : ApiFixture(postgres)
{
    private (string Key, string Value)[] _settings = [];
    private DeliveryHost? _delivery;

    public override async ValueTask InitializeAsync()
    {
        if (KafkaServer.MissingReason is not null)
            return;
        _settings = KafkaLog.Settings(await kafka.ConnectionStringAsync());
        await base.InitializeAsync();
        StartDelivery();
    }

    /// <summary>What makes a service one of this log's.</summary>
    internal (string Key, string Value)[] Log => _settings;

    internal void StartDelivery() => _delivery = new DeliveryHost(
        [("ConnectionStrings:triggersdb", ConnectionString), (
            "Delivery:AllowedNetworks", "127.0.0.0/8"), ("Shutdown:Delay", "00:00:00"), .. _settings], null);

    /// <summary>From then on events are accepted, and not projected.</summary>
    internal async Task StopDeliveryAsync()
    {
        if (_delivery is not null)
            await _delivery.DisposeAsync();
        _delivery = null;
    }

    private protected override Task<(string Key, string Value)[]> SettingsAsync() => Task.FromResult(_settings);

    internal override Task CaughtUpAsync() => Wait.UntilAsync("the projection has passed the end of the log", () =>
        Host.Services.GetRequiredService<ProjectionProgress>()
            .WaitForAsync(
                Guid.Empty, [TypeId.NewGuid()], new TimeLimit(TimeProvider.System, RequestBudget.Request),
                TestContext.Current.CancellationToken));

    public override async ValueTask DisposeAsync()
    {
        await StopDeliveryAsync();
        await base.DisposeAsync();
    }
}
