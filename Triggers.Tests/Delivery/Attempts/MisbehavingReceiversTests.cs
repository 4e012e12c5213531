using System.Text;
using Triggers.Core.Retries;
using Triggers.Core.Tables;
using Triggers.Delivery.Attempts;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery.Attempts;

/// <summary>Holds the sender against the table of receivers that keep to no rules.</summary>
public sealed class MisbehavingReceiversTests
{
    private static readonly RetryOptions Schedule = new() { Jitter = 0 };

    public static TheoryData<string> Receivers => [.. MisbehavingReceivers.All.Select(row => row.Receiver)];

    [Theory]
    [MemberData(nameof(Receivers))]
    public async Task What_comes_of_a_receiver_that(string misbehaves)
    {
        var row = MisbehavingReceivers.All.Single(row => row.Receiver == misbehaves);
        await using var receiver = new RawReceiver(row.OnSecondConnection is { } second ? [row.Steps, second] : [row.Steps]);
        await using var sender = new RealSender(
            options => options.AttemptTimeout = options.ConnectTimeout = TimeSpan.FromSeconds(row.TimesOut ? 0.5 : 30),
            Certificates.Root);
        var url = $"{(row.Secure ? "https" : "http")}://127.0.0.1:{receiver.Port}/hook";
        var data = $"\"{new string('x', row.DataBytes)}\"";

        AttemptResult result = null!;
        for (var i = 0; i < row.Webhooks; i++)
            result = await sender.SendAsync(url, data, cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal((row.Outcome, row.Status, row.Then), (result.Outcome, result.StatusCode, Then(result)));
        if (row.Cause is null)
            Assert.Null(result.Error);
        else
            Assert.Contains(row.Cause, result.Error, StringComparison.Ordinal);
        Assert.NotEmpty(result.Cause);
        foreach (var (name, value) in row.Headers)
            Assert.Equal(value, result.ResponseHeaders![name]);
        if (row.Body is not null)
            Assert.Equal(row.Body, Encoding.Latin1.GetString(result.ResponseBody!));
        Assert.Equal((row.Connections, row.Stale), (receiver.Connections, sender.StaleConnections));
        // Neither this machine's address nor a setting's name is a tenant's business.
        Assert.DoesNotContain("127.0.0.1", result.Cause, StringComparison.Ordinal);
        Assert.DoesNotContain("Delivery:", result.Cause, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_row_has_a_name_of_its_own() => Assert.Distinct(MisbehavingReceivers.All.Select(row => row.Receiver));

    /// <summary>What the schedule makes of it: how often it is tried in all, and when again.</summary>
    private static string Then(AttemptResult result)
    {
        var first = After(1);
        if (first.Status == DeliveryStatus.Pending)
        {
            var attempts = Enumerable.Range(1, 100).First(attempt => After(attempt).Status != DeliveryStatus.Pending);
            return $"{attempts} attempts, next in {first.Delay.TotalSeconds:0} s";
        }
        return first.SubscriptionIsGone ? "cancelled, and the subscription disabled" : first.Reason ?? "succeeded";

        Transition After(int attempt) =>
            RetrySchedule.After(Schedule, attempt, result.Outcome, result.StatusCode, result.RetryAfter, age: default, random: 0.5);
    }
}
