using System.Net.Http.Json;
using System.Text.Json;
using Confluent.Kafka;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Triggers.AppHost.Aspire;

/// <summary>Buttons of the dashboard.</summary>
internal static class Commands
{
    public const string SampleEvent = "sample-event";
    public const string Redrive = "redrive";
    public const string Reset = "reset";

    /// <summary>Publishes one event.</summary>
    public static IResourceBuilder<ProjectResource> WithSampleEventCommand(
        this IResourceBuilder<ProjectResource> api, IResourceBuilder<ParameterResource> adminKey) =>
        api.WithHttpCommand("/events", "Send a sample event", commandName: SampleEvent, commandOptions: new HttpCommandOptions
        {
            IconName = "Send",
            IsHighlighted = true,
            ResultMode = HttpCommandResultMode.Json,
            PrepareRequest = async context =>
            {
                context.Request.Headers.Add("X-API-Key", await adminKey.Resource.GetValueAsync(context.CancellationToken));
                context.Request.Content = JsonContent.Create(new { type = "demo.hello", data = new { text = "world" } });
            },
        });

    /// <summary>Replays every open dead letter.</summary>
    public static IResourceBuilder<ProjectResource> WithRedriveCommand(
        this IResourceBuilder<ProjectResource> api, IResourceBuilder<ParameterResource> adminKey) =>
        api.WithCommand(Redrive, "Redrive dead letters", async context =>
        {
            using var client = new HttpClient { BaseAddress = new Uri(api.GetEndpoint("http").Url) };
            client.DefaultRequestHeaders.Add("X-API-Key", await adminKey.Resource.GetValueAsync(context.CancellationToken));
            var (replayed, refused) = (0, 0);
            var cursor = "";
            do
            {
                var page = await client.GetFromJsonAsync<JsonElement>($"dead-letters?state=open&limit=100{cursor}", context.CancellationToken);
                foreach (var letter in page.GetProperty("items").EnumerateArray())
                {
                    using var answer = await client.PostAsync($"dead-letters/{letter.GetProperty("id").GetString()}/replay", null, context.CancellationToken);
                    _ = answer.IsSuccessStatusCode ? replayed++ : refused++;
                }
                cursor = page.TryGetProperty("nextCursor", out var next) && next.GetString() is { } text ? "&cursor=" + Uri.EscapeDataString(text) : null;
            }
            while (cursor is not null);
            return refused == 0
                ? CommandResults.Success($"{replayed} replayed.")
                : CommandResults.Failure($"{replayed} replayed, {refused} refused: the API's log says why.");
        }, new CommandOptions { IconName = "ArrowRepeatAll", ConfirmationMessage = "Deliver every open dead letter again?" });

    /// <summary>Drops the database, and the log that its positions belong to, and makes it anew.</summary>
    public static void WithResetCommand(
        this IResourceBuilder<IResourceWithConnectionString> database,
        IResourceBuilder<IResourceWithConnectionString>? kafka,
        IResourceBuilder<ProjectResource> migrations,
        params IResourceBuilder<ProjectResource>[] services) =>
        database.WithCommand(Reset, "Reset the database", async context =>
        {
            var commands = context.Services.GetRequiredService<ResourceCommandService>();
            foreach (var service in services)
                await commands.ExecuteCommandAsync(service.Resource, KnownResourceCommands.StopCommand, context.CancellationToken);

            await DropAsync((await database.Resource.GetConnectionStringAsync(context.CancellationToken))!, context.CancellationToken);
            if (kafka is not null)
                await DeleteTopicsAsync((await kafka.Resource.GetConnectionStringAsync(context.CancellationToken))!);

            // In any order: the services wait for the schema.
            foreach (var project in services.Prepend(migrations))
                await commands.ExecuteCommandAsync(project.Resource, KnownResourceCommands.StartCommand, context.CancellationToken);
            return CommandResults.Success("The database is being made anew.");
        }, new CommandOptions { IconName = "DatabaseWarning", ConfirmationMessage = "Drop every event, subscription and key?" });

    private static async Task DropAsync(string connectionString, CancellationToken cancellationToken)
    {
        var settings = new NpgsqlConnectionStringBuilder(connectionString);
        var database = new NpgsqlCommandBuilder().QuoteIdentifier(settings.Database!);
        settings.Database = "postgres";
        settings.Pooling = false;
        await using var connection = new NpgsqlConnection(settings.ConnectionString);
        await connection.OpenAsync(cancellationToken);
        await using var command = new NpgsqlCommand($"DROP DATABASE IF EXISTS {database} WITH (FORCE)", connection);
        await command.ExecuteNonQueryAsync(cancellationToken);
    }

    private static async Task DeleteTopicsAsync(string bootstrapServers)
    {
        using var admin = new AdminClientBuilder(new AdminClientConfig { BootstrapServers = bootstrapServers }).Build();
        var topics = admin.GetMetadata(TimeSpan.FromSeconds(10)).Topics
            .Select(topic => topic.Topic)
            .Where(name => name.StartsWith("triggers.", StringComparison.Ordinal))
            .ToList();
        if (topics.Count > 0)
            await admin.DeleteTopicsAsync(topics);
    }
}
