using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Triggers.AppHost;
using Triggers.AppHost.Stores;

if (args.Contains("--help"))
{
    Console.WriteLine(Settings.Help);
    return 0;
}
try
{
    var arguments = Settings.Parse(args);
    var builder = DistributedApplication.CreateBuilder(new DistributedApplicationOptions
    {
        Args = Settings.Complete(arguments),
        DisableDashboard = !Settings.HasDashboard(arguments),
    });
    var settings = new Settings(builder.Configuration, arguments, builder.AppHostDirectory);
    if (builder.ExecutionContext.IsPublishMode)
    {
        builder.AddTriggers(settings, containers: settings.Is("in-cluster-stores"));
        builder.Build().Run();
        return Environment.ExitCode;
    }
    // Everything listens on this machine only; there is nothing to be warned of.
    Environment.SetEnvironmentVariable("DASHBOARD__OTLP__SUPPRESSUNSECUREDTELEMETRYMESSAGE", "true");
    var containers = await ContainerRuntime.ChooseAsync(settings);
    await using var data = await DataDirectory.TakeAsync(settings);
    builder.AddTriggers(settings, containers: containers is not null);
    builder.Services.AddSingleton(settings).AddSingleton<Supervision>().TryAddSingleton(TimeProvider.System);
    builder.OnBeforeStart(async (start, _) =>
    {
        if (containers is not null && settings.Is("reset"))
            await containers.DropVolumesAsync();
        start.Services.GetRequiredService<Supervision>().Begin();
    });
    await using var app = builder.Build();
    await app.RunAsync();
    return app.Services.GetRequiredService<Supervision>().HasFailed ? 1 : 0;
}
catch (OperationCanceledException)
{
    // Told to stop while still starting.
    return 1;
}
catch (Exception e) when (e is DistributedApplicationException or UnauthorizedAccessException or IOException)
{
    Console.WriteLine(e.Message);
    return 1;
}
