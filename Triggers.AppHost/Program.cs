using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Triggers.AppHost.Stores;

namespace Triggers.AppHost;

internal static class Program
{
    /// <summary>Runs the application, or publishes it; or becomes another program, for which nothing else is loaded.</summary>
    public static int Main(string[] args) =>
        args is ["--as-nobody", var program, ..] ? Unix.BecomeAsNobody(program, args[2..]) : RunAsync(args).GetAwaiter().GetResult();

    private static async Task<int> RunAsync(string[] args)
    {
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
                DisableDashboard = arguments.Any(a => a.Key.Equals("Dashboard:Enabled", StringComparison.OrdinalIgnoreCase) && a.Value == "false"),
            });
            var settings = new Settings(builder.Configuration, arguments, builder.AppHostDirectory);
            if (builder.ExecutionContext.IsPublishMode)
            {
                builder.AddTriggers(settings, containers: settings.InClusterStores);
                builder.Build().Run();
                return Environment.ExitCode;
            }

            // Everything listens on this machine only; there is nothing to be warned of.
            Environment.SetEnvironmentVariable("DASHBOARD__OTLP__SUPPRESSUNSECUREDTELEMETRYMESSAGE", "true");
            var containers = await ContainerRuntime.IsChosenAsync(settings);
            await using var data = await DataDirectory.TakeAsync(settings, containers);
            await Postgres.CheckGivenAsync(settings);
            builder.AddTriggers(settings, containers);
            builder.Services.AddSingleton(settings).AddSingleton<Supervision>();
            builder.Services.TryAddSingleton(TimeProvider.System);
            builder.OnBeforeStart((start, _) => start.Services.GetRequiredService<Supervision>().BeginAsync());
            await using var app = builder.Build();
            return await app.Services.GetRequiredService<Supervision>().RunAsync(app);
        }
        catch (Exception e) when (e is DistributedApplicationException or UnauthorizedAccessException or IOException)
        {
            Console.WriteLine(e.Message);
            return 1;
        }
    }
}
