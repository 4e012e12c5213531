using System.Diagnostics;
using System.Text.Json;
using Triggers.Core;
using Triggers.Core.Retries;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Delivery.Completion;
using Triggers.Delivery.Subscriptions;

namespace Triggers.Delivery.Attempts;

/// <summary>Several deliveries in one request, to subscriptions that ask for that. Its result is that of each of them.</summary>
internal sealed partial class Attempter
{
    /// <summary>Starts deliveries to a subscription for which one place, and memory, are kept, and goes on at once.</summary>
    /// <param name="batch">What was claimed, in its order.</param>
    /// <param name="lanes">Where the place is, to be given back.</param>
    public void Start(IReadOnlyList<DueDelivery> batch, Lanes lanes)
    {
        Interlocked.Increment(ref _inFlight);
        foreach (var delivery in batch)
            completions.Hold(delivery.Id, delivery.Claim);
        _ = AttemptAsync(batch, lanes);
    }

    private async Task AttemptAsync(IReadOnlyList<DueDelivery> batch, Lanes lanes)
    {
        // Nothing below may throw, for nobody would see it.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        var subscriptionId = batch[0].SubscriptionId;
        try
        {
            await CompleteAsync(batch, await MakeAsync(batch, lanes));
        }
        catch (Exception e) when (Storage.IsAway(e))
        {
            Log.Unread(logger, TypeId.Format(TypeId.Delivery, batch[0].Id), e.Message);
            await CompleteAsync(batch, [.. batch.Select(d => WithoutAttempt(d, Transition.Released()))]);
        }
        catch (Exception e)
        {
            await CompleteAsync(batch, []);
            Log.Broken(logger, e, TypeId.Format(TypeId.Delivery, batch[0].Id));
        }
        finally
        {
            Interlocked.Decrement(ref _inFlight);
            var isWaited = lanes.ReleaseBytes(subscriptionId, batch.Sum(d => d.DataBytes));
            if (lanes.Release(subscriptionId) || isWaited || _abort.IsCancellationRequested)
                wakeups.Dispatch.Set();
        }
    }

    /// <summary>Has it written what became of them, together, since the next in order goes when the first of them has ended.</summary>
    private async Task CompleteAsync(IReadOnlyList<DueDelivery> batch, IReadOnlyList<Completed> completed)
    {
        if (completed.Count < batch.Count)
        {
            // Their lease brings them back.
            var written = completed.Select(c => c.Result.Id).ToHashSet();
            foreach (var delivery in batch.Where(d => !written.Contains(d.Id)))
                completions.Forget(delivery.Id, delivery.Claim);
        }
        if (completed.Count > 0)
            await completions.AddAsync(completed.Count == 1 ? completed[0] : completed[0] with { Others = [.. completed.Skip(1)] });
    }

    private async Task<IReadOnlyList<Completed>> MakeAsync(IReadOnlyList<DueDelivery> batch, Lanes lanes)
    {
        var subscriptionId = batch[0].SubscriptionId;
        var subscriber = subscribers.Find(subscriptionId);
        if (subscriber is null)
        {
            await subscribers.RefreshAsync(dataSource.Pool, _abort.Token);
            subscriber = subscribers.Find(subscriptionId);
        }
        if (subscriber is null)
            return [.. batch.Select(d => WithoutAttempt(d, Transition.Cancelled()))];
        // What wants each alone by now gets each alone.
        if (!subscriber.Enabled && !batch[0].Test || subscriber.Batch is null)
            return [.. batch.Select(d => WithoutAttempt(d, Transition.Released()))];
        var mayGo = batch.Sum(d => d.DataBytes) > LargeBytes ? _signing : null;
        if (mayGo is not null)
            await mayGo.WaitAsync(_abort.Token);
        try
        {
            return await MakeAsync(batch, lanes, subscriber, Signed);
        }
        finally
        {
            Signed();
        }

        void Signed() => Interlocked.Exchange(ref mayGo, null)?.Release();
    }

    private async Task<IReadOnlyList<Completed>> MakeAsync(
        IReadOnlyList<DueDelivery> claimed, Lanes lanes, Subscriber subscriber, Action signed)
    {
        // Too late to be sure to end within the lease.
        if (time.GetElapsedTime(claimed[0].ClaimedAt) + options.Value.TimeoutOf(subscriber.Retry) + DeliveryOptions.LeaseMargin
            >= options.Value.Lease)
            return [];
        var unsent = new List<Completed>();
        if (await ReadAsync(claimed, subscriber, unsent) is not { } batch)
            return unsent;
        using var activity = DeliveryTraces.StartBatch(batch, subscriber.Url);
        return [.. await SendAsync(batch, lanes, signed, subscriber, activity), .. unsent];
    }

    /// <summary>The body is kept until it is answered: what a lane has in memory is bounded as long.</summary>
    private async Task<Batch?> ReadAsync(IReadOnlyList<DueDelivery> claimed, Subscriber subscriber, List<Completed> unsent)
    {
        var shares = claimed.Select(d => payloads.Hold(d.TenantId, d.EventId, d.DataBytes, subscriber.Format)).ToArray();
        try
        {
            var (deliveries, messages) = (new List<DueDelivery>(claimed.Count), new List<WebhookMessage>(claimed.Count));
            foreach (var (delivery, share) in claimed.Zip(shares))
            {
                if (await share.ReadAsync(_abort.Token) is not { } message)
                {
                    Log.EventIsGone(logger, TypeId.Format(TypeId.Delivery, delivery.Id), TypeId.Format(TypeId.Event, delivery.EventId));
                    unsent.Add(WithoutAttempt(delivery, Transition.Cancelled()));
                }
                else if (Unsent(delivery, message.Event, subscriber) is { } completed)
                {
                    unsent.Add(completed);
                }
                else
                {
                    deliveries.Add(delivery);
                    messages.Add(message);
                }
            }
            return deliveries.Count == 0 ? null : new Batch(deliveries, messages);
        }
        finally
        {
            foreach (var share in shares)
                share.Dispose();
        }
    }

    private async Task<IReadOnlyList<Completed>> SendAsync(
        Batch batch, Lanes lanes, Action signed, Subscriber subscriber, Activity? activity)
    {
        var started = time.GetTimestamp();
        foreach (var (delivery, message) in batch.Deliveries.Zip(batch.Messages))
        {
            if (delivery is { RetryCount: 0, IsReplay: false, Test: false })
                metrics.FirstAttempt(Since(delivery.EventId, message.Event));
        }
        AttemptResult result;
        metrics.AttemptStarted();
        try
        {
            result = await sender.SendAsync(batch, signed, subscriber, activity, _abort.Token);
        }
        catch (OperationCanceledException)
        {
            return [.. batch.Deliveries.Select(d => WithoutAttempt(d, Transition.Released()))];
        }
        finally
        {
            metrics.AttemptEnded();
        }

        if (result.Certificate is { } certificate)
            await KeepAsync(certificate);
        var policy = subscriber.Retry is { } own ? options.Value.Retry.With(own) : options.Value.Retry;
        metrics.Attempted(result);
        metrics.BatchSent(batch.Deliveries.Count);
        if (!batch.Deliveries[0].Test)
            Learn(lanes, subscriber, started, result, policy.MaxRetryAfter);
        var headers = result.ResponseHeaders is { } answered ? JsonSerializer.Serialize(answered) : null;
        // The same for all: what fails together is due together.
        var random = Random.Shared.NextDouble();
        var completed = batch.Deliveries.Zip(batch.Messages, (delivery, message) =>
            Ended(delivery, message.Event, batch, result, policy, random, subscriber, headers, started, activity)).ToArray();
        DeliveryTraces.Attempted(activity, result, completed[0].Result.Status);
        if (result.Outcome != AttemptOutcome.Delivered)
        {
            Log.BatchFailed(logger, TypeId.Format(TypeId.Batch, batch.Id), batch.Deliveries.Count,
                TypeId.Format(TypeId.Subscription, subscriber.Id), SnakeCase<AttemptOutcome>.Of(result.Outcome), result.Cause,
                SnakeCase<DeliveryStatus>.Of(completed[0].Result.Status), completed[0].Result.Delay.TotalSeconds);
        }
        return completed;
    }

    private Completed Ended(
        DueDelivery delivery, StoredEvent e, Batch batch, AttemptResult result, RetryOptions policy, double random,
        Subscriber subscriber, string? headers, long started, Activity? activity)
    {
        var number = delivery.RetryCount + 1;
        var transition = RetrySchedule.After(
            policy, number, result.Outcome, result.StatusCode, result.RetryAfter,
            Since(delivery.Id, e), random, e.ExpiresAt - time.GetUtcNow());
        if (delivery.OrderKey is not null)
            transition = RetrySchedule.OfHead(transition, number, subscriber.FailingHead, subscriber.FailingHeadAttempts);
        if (delivery.Test && result.Outcome != AttemptOutcome.Delivered)
            transition = Transition.Cancelled();
        if (result.Outcome == AttemptOutcome.Delivered && delivery is { IsReplay: false, Test: false })
            metrics.Delivered(Since(delivery.EventId, e));
        int? limit = null;
        if (batch.Deliveries.Count > 1)
            (transition, limit) = RetrySchedule.OfBatch(
                transition, batch.Deliveries.Count, delivery.IsBehind, result.Outcome, result.StatusCode);
        var made = new AttemptMade(
            TypeId.NewGuid(), number, TimeSpan.Zero, result.Duration, result.Outcome, result.Error, result.StatusCode, headers,
            result.ResponseBody)
        { BatchId = batch.Id };
        var traceParent = activity is { Recorded: true } && transition.Status == DeliveryStatus.Pending ? activity.Id : null;
        var completed = Completed(delivery, transition, made, traceParent, started, delivery.Test ? null : subscriber.Revision);
        return limit is null ? completed : completed with { Result = completed.Result with { BatchLimit = limit } };
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 6, Level = LogLevel.Information,
            Message =
                "batch.attempted {BatchId} of {Deliveries} deliveries to {SubscriptionId}: ended {Outcome} ({Cause}), the first now "
                    + "{Status}, due in {DelaySeconds} s")]
        public static partial void BatchFailed(
            ILogger logger, string batchId, int deliveries, string subscriptionId, string outcome, string cause, string status,
            double delaySeconds);
    }
}
