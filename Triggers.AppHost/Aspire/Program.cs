using Triggers.AppHost;
using Triggers.AppHost.Aspire;

var builder = DistributedApplication.CreateBuilder(AspireSettings.Complete(args));
var settings = new AspireSettings(builder, args);
if (builder.ExecutionContext.IsRunMode)
    Console.WriteLine(Engine.Introduction(settings.WhereDataIs));
builder.AddTriggers(settings);
builder.Build().Run();
