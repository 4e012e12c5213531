namespace Triggers.Tests.Support;

/// <summary>
/// Tests that each have a delivery engine and a receiver of their own: on the Kafka log where a Kafka is given, on that of Postgres
/// otherwise.
/// </summary>
public abstract class EngineTests(PostgresServer postgres, KafkaServer? kafka = null) : IAsyncLifetime
{
    private protected Engine Engine { get; private set; } = null!;

    private protected TestReceiver Receiver { get; private set; } = null!;

    public async ValueTask InitializeAsync()
    {
        if (kafka is not null)
            KafkaServer.SkipIfMissing();
        Engine = await Engine.CreateAsync(postgres, kafka is null ? null : await kafka.ConnectionStringAsync());
        Receiver = await TestReceiver.StartAsync();
    }

    public async ValueTask DisposeAsync()
    {
        if (Engine is not null)
            await Engine.DisposeAsync();
        if (Receiver is not null)
            await Receiver.DisposeAsync();
    }
}
