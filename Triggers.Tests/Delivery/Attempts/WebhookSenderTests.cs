using System.Collections.Concurrent;
using System.Diagnostics.Tracing;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Tests.Support;
using static Triggers.Tests.Support.Steps;

namespace Triggers.Tests.Delivery.Attempts;

/// <summary>What goes out, seen from the other end of a raw socket, and what is said when nothing may.</summary>
public sealed class WebhookSenderTests
{
    private static readonly Step[] Accepts = [Read, Send("HTTP/1.1 204 No Content\r\n\r\n"), Hang];

    [Theory]
    [InlineData("", "/")]
    [InlineData("?a=1", "/?a=1")]
    [InlineData("/%7Eme", "/%7Eme")]
    [InlineData("/~me", "/~me")]
    [InlineData("/a/../b/./c//d", "/a/../b/./c//d")]
    [InlineData("/a%2fb%2Fc", "/a%2fb%2Fc")]
    [InlineData("/x?sig=%7e%41+%20&t=a%3Db", "/x?sig=%7e%41+%20&t=a%3Db")]
    [InlineData("/{id}|[1]?q=<\"^`>", "/{id}|[1]?q=<\"^`>")]
    [InlineData("/100%", "/100%")]
    [InlineData("/x?url=http://b/%zz/../c", "/x?url=http://b/%zz/../c")]
    public async Task Path_and_query_go_out_byte_for_byte(string given, string sent)
    {
        await using var receiver = new RawReceiver([Accepts]);
        await using var sender = new RealSender();
        Assert.True(WebhookAddress.TryNormalize($"http://127.0.0.1:{receiver.Port}{given}", out var stored, out _));

        var result = await sender.SendAsync(stored, cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal(AttemptOutcome.Delivered, result.Outcome);
        Assert.StartsWith($"POST {sent} HTTP/1.1\r\n", receiver.Requests.Single(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Every_header_that_is_accepted_is_sent_as_it_is()
    {
        using var probe = new HttpRequestMessage();
        const string Value = "a, b;c=\"d\" / :";
        var names = typeof(Microsoft.Net.Http.Headers.HeaderNames).GetFields().Select(field => (string)field.GetValue(null)!)
            .Append("X-Own").Distinct(StringComparer.OrdinalIgnoreCase).ToArray();
        var accepted = names.Where(name => WebhookHeaders.Add(probe.Headers, name, Value) is null).ToArray();
        await using var receiver = new RawReceiver([Accepts]);
        await using var sender = new RealSender();

        var result = await sender.SendAsync(
            $"http://127.0.0.1:{receiver.Port}/", headers: accepted.ToDictionary(name => name, _ => Value),
            cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal(AttemptOutcome.Delivered, result.Outcome);
        Assert.Superset(new HashSet<string> { "Authorization", "Cookie", "Accept", "If-Match", "X-Own" }, accepted.ToHashSet());
        var head = receiver.Requests.Single();
        Assert.All(accepted, name => Assert.Contains($"\r\n{name}: {Value}\r\n", head, StringComparison.OrdinalIgnoreCase));
        string[] refused =
            ["Last-Modified", "Expires", "Allow", "Content-Type", "Content-Length", "Host", "Connection", "Transfer-Encoding"];
        Assert.Empty(accepted.Intersect(refused));
    }

    [Theory]
    [InlineData("http://0.0.0.0/", "the address is not one that webhooks may be sent to")]
    [InlineData("http://[::]/", "the address is not one that webhooks may be sent to")]
    [InlineData("http://168.63.129.16/machine", "the address is not one that webhooks may be sent to")]
    [InlineData("http://localhost:8080/", "the address is not one that webhooks may be sent to")]
    [InlineData("http://127.0.0.1:25/", "webhooks may not be sent to port 25")]
    public async Task What_the_guard_refuses_names_neither_addresses_nor_settings_to_the_tenant_and_both_in_the_log(
        string url, string said)
    {
        await using var sender = new RealSender(options => options.AllowedNetworks = "");

        var result = await sender.SendAsync(url, cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal((AttemptOutcome.RefusedByGuard, said), (result.Outcome, result.Error));
        var line = Assert.Single(sender.Logs.Lines, line => line.Message.StartsWith("Refused to send", StringComparison.Ordinal));
        Assert.Contains("Delivery:Allowed", line.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_connection_that_was_closed_while_idle_is_not_used_again()
    {
        await using var receiver = new RawReceiver([[Read, Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Close], Accepts]);
        await using var sender = new RealSender();
        var url = $"http://127.0.0.1:{receiver.Port}/";
        await sender.SendAsync(url, cancellationToken: TestContext.Current.CancellationToken);

        // Whether the close is known by then or not, it is no failed attempt.
        var result = await sender.SendAsync(url, cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal((AttemptOutcome.Delivered, 204, 2), (result.Outcome, result.StatusCode, receiver.Connections));
    }

    [Fact]
    public async Task A_timeout_writes_no_error_to_the_log()
    {
        await using var receiver = new RawReceiver([[Read, Hang]]);
        await using var sender = new RealSender(options => options.AttemptTimeout = options.ConnectTimeout = TimeSpan.FromSeconds(0.2));

        for (var i = 0; i < 5; i++)
        {
            var result = await sender.SendAsync(
                $"http://127.0.0.1:{receiver.Port}/", cancellationToken: TestContext.Current.CancellationToken);
            Assert.Equal(AttemptOutcome.Timeout, result.Outcome);
        }

        Assert.DoesNotContain(sender.Logs.Lines, line => line.Level > Microsoft.Extensions.Logging.LogLevel.Information);
    }

    [Fact]
    public async Task An_answer_counts_that_came_before_the_service_was_stopped()
    {
        using var answers = new ReadAnswers();
        await using var receiver = new RawReceiver([[Read, Send("HTTP/1.1 299 Taken\r\nContent-Length: 100\r\n\r\nhalf"), Hang]]);
        await using var sender = new RealSender();
        using var stop = new CancellationTokenSource();
        var sending = sender.SendAsync($"http://127.0.0.1:{receiver.Port}/", cancellationToken: stop.Token);
        await Wait.UntilAsync("the headers of the answer are read", () => answers.Seen(299));

        await stop.CancelAsync();

        var result = await sending;
        Assert.Equal((AttemptOutcome.Delivered, 299), (result.Outcome, result.StatusCode));
    }

    [Fact]
    public async Task An_attempt_without_answer_is_broken_off_when_the_service_is_stopped()
    {
        await using var receiver = new RawReceiver([[Read, Hang]]);
        await using var sender = new RealSender();
        using var stop = new CancellationTokenSource();
        var sending = sender.SendAsync($"http://127.0.0.1:{receiver.Port}/", cancellationToken: stop.Token);
        await Wait.UntilAsync("the request came", () => receiver.Requests.Count == 1);

        await stop.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => sending);
    }

    /// <summary>Hears when HttpClient has read the headers of an answer.</summary>
    private sealed class ReadAnswers : EventListener
    {
        private readonly ConcurrentBag<int> _statuses = [];

        public bool Seen(int status) => _statuses.Contains(status);

        protected override void OnEventSourceCreated(EventSource source)
        {
            if (source.Name == "System.Net.Http")
                EnableEvents(source, EventLevel.Informational);
        }

        protected override void OnEventWritten(EventWrittenEventArgs e)
        {
            if (e is { EventName: "ResponseHeadersStop", Payload: [int status, ..] })
                _statuses?.Add(status);
        }
    }
}
