using Triggers.ServiceDefaults;

var builder = WebApplication.CreateBuilder(args);
builder.AddServiceDefaults();

var app = builder.Build();
app.MapLiveAndReady();
return await app.RunServiceAsync();
