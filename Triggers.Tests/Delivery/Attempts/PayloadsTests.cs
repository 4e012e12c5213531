using System.Text;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Delivery.Attempts;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery.Attempts;

public sealed class PayloadsTests
{
    private readonly StoredEvent _event =
        new(TypeId.NewGuid(), "order.created", null, null, null, null, "c", null, Encoding.UTF8.GetBytes("[1]"));
    private readonly TaskCompletionSource _database = new();
    private readonly Payloads _payloads;
    private int _reads;

    public PayloadsTests() => _payloads = new Payloads(async (events, _) =>
    {
        Interlocked.Increment(ref _reads);
        await _database.Task;
        return events.Any(e => e.Id == _event.Id) ? [_event] : [];
    });

    [Theory]
    [InlineData(3)]
    [InlineData(1_000_000)]
    public async Task An_event_is_read_once_for_all_who_send_it_and_let_go_with_the_last(int bytes)
    {
        var shares = Enumerable.Range(0, 10).Select(_ => _payloads.Hold(Guid.Empty, _event.Id, bytes, MessageFormat.Envelope)).ToArray();
        _database.SetResult();

        var payloads = await Task.WhenAll(shares.Select(s => s.ReadAsync(TestContext.Current.CancellationToken)));

        Assert.Equal(1, _reads);
        Assert.All(payloads, p => Assert.Same(payloads[0], p));
        Assert.EndsWith("\"data\":[1]}", Encoding.UTF8.GetString(payloads[0]!.Body), StringComparison.Ordinal);
        foreach (var share in shares)
        {
            Assert.Equal(1, _payloads.Count);
            share.Dispose();
            share.Dispose();
        }
        Assert.Equal(0, _payloads.Count);
    }

    [Fact]
    public async Task Who_needs_it_again_reads_it_again()
    {
        _database.SetResult();
        var share = _payloads.Hold(Guid.Empty, _event, MessageFormat.Envelope);
        share.Dispose();
        Assert.Equal(0, _reads);

        using var again = share.Again();

        Assert.NotNull(await again.ReadAsync(TestContext.Current.CancellationToken));
        Assert.Equal(1, _reads);
    }

    [Fact]
    public async Task What_could_not_be_read_is_read_anew_for_the_next()
    {
        _database.SetException(new IOException());
        using var failed = _payloads.Hold(Guid.Empty, _event.Id, 3, MessageFormat.Envelope);
        await Assert.ThrowsAsync<IOException>(() => failed.ReadAsync(TestContext.Current.CancellationToken));

        using var next = _payloads.Hold(Guid.Empty, _event.Id, 3, MessageFormat.Envelope);
        await Assert.ThrowsAsync<IOException>(() => next.ReadAsync(TestContext.Current.CancellationToken));

        Assert.Equal(2, _reads);
    }

    [Fact]
    public async Task What_is_no_longer_kept_is_nothing()
    {
        _database.SetResult();
        using var share = _payloads.Hold(Guid.Empty, TypeId.NewGuid(), 3, MessageFormat.Envelope);

        Assert.Null(await share.ReadAsync(TestContext.Current.CancellationToken));
    }
}
