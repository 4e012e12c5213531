namespace Triggers.AppHost.Aspire;

/// <summary>
/// The system as Aspire runs and publishes it. Who refers to whom, waits for whom and is told what stands in <see cref="Topology"/>, for both
/// engines; <see cref="Wiring"/> reads it from there. Here is what each part is.
/// </summary>
internal static class TriggersModel
{
    public static void AddTriggers(this IDistributedApplicationBuilder builder, AspireSettings settings)
    {
        var wiring = new Wiring(builder, settings);

        var postgres = wiring.AddPostgres();
        wiring.AddRedis();
        var kafka = settings.WithKafka ? wiring.AddKafka() : null;

        var migrations = wiring.AddService<Projects.Triggers_Api>(Topology.Migrations);

        var api = wiring.AddService<Projects.Triggers_Api>(Topology.Api)
            .WithExternalHttpEndpoints();

        var delivery = wiring.AddService<Projects.Triggers_Delivery>(Topology.Delivery);

        if (builder.ExecutionContext.IsRunMode)
        {
            wiring.AddService<Projects.Triggers_Receiver>(Topology.Receiver);

            api.WithSampleEventCommand(wiring.AdminKey)
                .WithRedriveCommand(wiring.AdminKey);
            if (settings.Named(Topology.Database) is null)
                postgres.WithResetCommand(kafka, migrations, api, delivery);
        }
        else if (settings.PublishesChart)
        {
            var chart = builder.AddChart(settings);
            chart.AddIngress(settings, api);
            migrations.PublishAsJob();
            api.PublishAsService();
            delivery.PublishAsService();
            wiring.PublishStoresOnVolumes();
        }
    }
}
