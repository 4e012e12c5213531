namespace Triggers.Tests.Support;

/// <summary>
/// Tests that each have a delivery engine and a receiver of their own: on the Kafka log where a Kafka is given, on that of Postgres
/// otherwise.
/// </summary>
public abstract class EngineTests(PostgresServer postgres, KafkaServer? kafka = null) : IAsyncLifetime
{
    private protected Engine Engine { get; private set; } = null!;

    private protected TestReceiver Receiver { get; private set; } = null!;

    public virtual async ValueTask InitializeAsync()
    {
        if (kafka is not null)
            KafkaServer.SkipIfMissing();
        Engine = await Engine.CreateAsync(postgres, kafka is null ? null : await kafka.ConnectionStringAsync());
        Receiver = await TestReceiver.StartAsync();
    }

    /// <summary>Lets Postgres refuse the deliveries of events of a type.</summary>
    private protected Task RefuseDeliveriesOfAsync(string type) => Engine.ExecuteAsync(
        $"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (SELECT type FROM events WHERE tenant_id = NEW.tenant_id AND id = NEW.event_id) = '{type}' THEN
                RAISE EXCEPTION 'not this one' USING ERRCODE = 'invalid_parameter_value';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON delivery_queue FOR EACH ROW EXECUTE FUNCTION refuse();
        CREATE TRIGGER refuse BEFORE INSERT ON deliveries FOR EACH ROW EXECUTE FUNCTION refuse()
        """);

    public virtual async ValueTask DisposeAsync()
    {
        if (Engine is not null)
            await Engine.DisposeAsync();
        if (Receiver is not null)
            await Receiver.DisposeAsync();
    }
}

/// <summary>The same, with an API on that log, and a client of it with every scope.</summary>
public abstract class ApiAndEngineTests(PostgresServer postgres, KafkaServer? kafka = null) : EngineTests(postgres, kafka)
{
    private protected ApiHost Api { get; private set; } = null!;

    private protected ApiClient Client { get; private set; } = null!;

    /// <summary>Of the API, beside those of every service.</summary>
    private protected virtual (string Key, string Value)[] ApiSettings => [];

    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        Api = new ApiHost(Engine.ConnectionString, [.. Engine.Settings, .. ApiSettings]);
        Client = Api.Client();
        await Client.WaitUntilReadyAsync();
    }

    public override async ValueTask DisposeAsync()
    {
        Client?.Dispose();
        if (Api is not null)
            await Api.DisposeAsync();
        await base.DisposeAsync();
    }
}
