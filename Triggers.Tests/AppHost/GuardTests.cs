using System.IO.Pipes;
using System.Net;
using Triggers.AppHost;
using Triggers.AppHost.Processes;
using Triggers.Tests.Support;

namespace Triggers.Tests.AppHost;

/// <summary>The guard inside this process, with real children: what it says, and what it does with what it is told.</summary>
[Collection(nameof(AppHostCollection))]
public sealed class GuardTests : IDisposable
{
    private static readonly TimeSpan s_bound = TimeSpan.FromMinutes(2);

    private readonly string _directory = TestDirectory.New();
    private readonly AnonymousPipeServerStream _input = new(PipeDirection.Out);
    private readonly AnonymousPipeServerStream _output = new(PipeDirection.In);
    private readonly HttpClient _client = new();
    private readonly List<string> _said = [];

    [Fact]
    public async Task It_starts_the_topology_kills_and_restarts_as_told_restarts_what_crashes_and_ends_with_its_input()
    {
        var programs = Path.GetDirectoryName(Path.GetDirectoryName(Programs.Copy(_directory)))!;
        var settings = Settings.Read(
        [
            $"--Data:Directory={_directory}", "--Data:Temporary=true", $"--Guard:Programs={programs}", $"--Guard:Owner={Environment.ProcessId}",
            "--Dashboard:Enabled=false", $"--Kafka:Home={KafkaServer.Home}", "--Ports:Kafka=0", "--replicas", "2", "--Ports:Api=0", "--Ports:Receiver=0",
        ]);
        using var input = new StreamReader(new AnonymousPipeClientStream(PipeDirection.In, _input.ClientSafePipeHandle));
        await using var output = new StreamWriter(new AnonymousPipeClientStream(PipeDirection.Out, _output.ClientSafePipeHandle));
        using var said = new StreamReader(_output);
        var commands = new StreamWriter(_input) { AutoFlush = true };

        var running = Guard.RunAsync(settings, input, new Screen(output));
        await ExpectAsync(said, "Ctrl-C stops everything.");
        var record = RunRecord.Read(_directory)!;
        Assert.Equal(
            ["api-1", "api-2", "delivery-1", "delivery-2", .. KafkaServer.Home is null ? Array.Empty<string>() : ["kafka"], "postgres", "receiver", "redis"],
            record.Processes.Keys.Order());
        Assert.Equal(HttpStatusCode.OK, await StatusAsync(record));

        await commands.WriteLineAsync("kill api-2");
        await ExpectAsync(said, "done");
        await Assert.ThrowsAsync<HttpRequestException>(() => StatusAsync(record));
        await commands.WriteLineAsync("start api-2");
        await ExpectAsync(said, "done");
        Assert.Equal(HttpStatusCode.OK, await StatusAsync(record));

        Unix.Signal(RunRecord.Read(_directory)!.Processes["receiver"].Id, Unix.SIGKILL);
        await ExpectAsync(said, "receiver | ended by signal 9");
        await ExpectAsync(said, "receiver | is back");

        var processes = RunRecord.Read(_directory)!.Processes;
        await commands.DisposeAsync();
        Assert.Equal(0, await running.WaitAsync(s_bound, TestContext.Current.CancellationToken));
        Assert.DoesNotContain(processes.Values, process => process.IsAlive);
        Assert.False(Directory.Exists(_directory));
    }

    public void Dispose()
    {
        _input.Dispose();
        _output.Dispose();
        _client.Dispose();
    }

    private async Task<HttpStatusCode> StatusAsync(RunRecord.Content record)
    {
        using var response = await _client.GetAsync($"{record.Addresses["api-2"]}/health/ready", TestContext.Current.CancellationToken);
        return response.StatusCode;
    }

    private async Task ExpectAsync(StreamReader reader, string text)
    {
        using var bound = new CancellationTokenSource(s_bound);
        while (await reader.ReadLineAsync(bound.Token) is { } line)
        {
            _said.Add(line);
            if (line.Contains(text, StringComparison.Ordinal))
                return;
        }
        throw new InvalidOperationException($"The guard ended without '{text}':{Environment.NewLine}{string.Join(Environment.NewLine, _said)}");
    }
}
