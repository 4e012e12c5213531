using System.Diagnostics;
using System.Text.Json;
using Microsoft.Extensions.Options;
using Triggers.Core;
using Triggers.Core.Retries;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Delivery.Completion;
using Triggers.Delivery.Subscriptions;
using Triggers.Delivery.Waking;

namespace Triggers.Delivery.Attempts;

/// <summary>Makes the attempt of a claimed delivery, from its start to the result that is to be written.</summary>
internal sealed partial class Attempter(
    EngineDataSource dataSource,
    Subscribers subscribers,
    Wakeups wakeups,
    Payloads payloads,
    WebhookSender sender,
    Circuits.Circuits circuits,
    Completions completions,
    DeliveryMetrics metrics,
    IOptions<DeliveryOptions> options,
    TimeProvider time,
    ILogger<Attempter> logger) : IDisposable
{
    private const int LargeBytes = 64 * 1024;

    private readonly CancellationTokenSource _abort = new();

    /// <summary>How long a receiver has to take in a large body before the next one is begun. It has more time, but not alone.</summary>
    private static readonly TimeSpan s_writing = TimeSpan.FromMilliseconds(25);

    /// <summary>
    /// To sign and write a large body takes a processor for milliseconds: so many at a time, that those who send little are not behind them
    /// all.
    /// </summary>
    private readonly SemaphoreSlim _signing = new(Environment.ProcessorCount);

    private int _inFlight;

    /// <summary>Starts a delivery for which a place and memory are kept, and goes on at once.</summary>
    /// <param name="delivery">What was claimed.</param>
    /// <param name="lanes">Where its place is, to be given back.</param>
    /// <param name="known">Its event, where it has been read; otherwise that is read now.</param>
    public void Start(DueDelivery delivery, Lanes lanes, StoredEvent? known = null)
    {
        var subscriber = subscribers.Find(delivery.SubscriptionId);
        if (subscriber is { Batch: not null } && known is null)
        {
            Start([delivery], lanes);
            return;
        }
        Interlocked.Increment(ref _inFlight);
        completions.Hold(delivery.Id, delivery.Claim);
        var format = subscriber is null ? MessageFormat.Envelope : subscriber.Format;
        var share = known is null ? payloads.Hold(delivery.TenantId, delivery.EventId, delivery.DataBytes, format)
            : payloads.Hold(delivery.TenantId, known, format);
        _ = AttemptAsync(delivery, share, lanes, subscriber);
    }

    /// <summary>
    /// Lets attempts finish until the token says that the time is up, then breaks them off: those come due again at once.
    /// </summary>
    public async Task DrainAsync(CancellationToken timeIsUp)
    {
        await using (timeIsUp.Register(_abort.Cancel))
        {
            while (Volatile.Read(ref _inFlight) > 0)
                await wakeups.Dispatch.WaitAsync(TimeSpan.FromMilliseconds(100), CancellationToken.None);
        }
    }

    public void Dispose()
    {
        _abort.Dispose();
        _signing.Dispose();
    }

    private async Task AttemptAsync(DueDelivery delivery, PayloadShare share, Lanes lanes, Subscriber? subscriber)
    {
        // Nothing below may throw, for nobody would see it.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        var (bytes, startedAt) = (delivery.DataBytes, time.GetTimestamp());
        try
        {
            if (await MakeAsync(delivery, share, lanes, subscriber, LetGo) is { } completed)
                await completions.AddAsync(completed, delivery.First);
            else
                completions.Forget(delivery.Id, delivery.Claim);
        }
        catch (Exception e) when (Storage.IsAway(e))
        {
            // Its event, or its subscription, could not be read. It is due again as soon as that can be written.
            Log.Unread(logger, TypeId.Format(TypeId.Delivery, delivery.Id), e.Message);
            await completions.AddAsync(WithoutAttempt(delivery, Transition.Released()), delivery.First);
        }
        catch (Exception e)
        {
            completions.Forget(delivery.Id, delivery.Claim);
            Log.Broken(logger, e, TypeId.Format(TypeId.Delivery, delivery.Id));
        }
        finally
        {
            LetGo();
            Interlocked.Decrement(ref _inFlight);
            if (lanes.Release(delivery.SubscriptionId, isNew: delivery.First is not null, startedAt) || _abort.IsCancellationRequested)
                wakeups.Dispatch.Set();
        }

        // When the request is written, or else at the end.
        void LetGo()
        {
            share.Dispose();
            if (Interlocked.Exchange(ref bytes, 0) is var held and > 0 && lanes.ReleaseBytes(delivery.SubscriptionId, held))
                wakeups.Dispatch.Set();
        }
    }

    /// <summary>Null when nothing was done and nothing is to be written: the lease brings the delivery back.</summary>
    private async Task<Completed?> MakeAsync(
        DueDelivery delivery, PayloadShare share, Lanes lanes, Subscriber? subscriber, Action letGo)
    {
        if (subscriber is null)
        {
            // Deleted, or so new that this process has not read it.
            await subscribers.RefreshAsync(dataSource.Pool, _abort.Token);
            subscriber = subscribers.Find(delivery.SubscriptionId);
            if (subscriber is null)
                return WithoutAttempt(delivery, Transition.Cancelled());
            // What is held of the event was made without knowing for whom.
            if (subscriber.Format != share.Format || subscriber.Batch is not null)
                return WithoutAttempt(delivery, Transition.Released());
        }
        if (!subscriber.Enabled && !delivery.Test)
            return WithoutAttempt(delivery, Transition.Released());
        // Not with one of the places for signing, which others need.
        if (subscriber.Format.IsSlow && !await IsMadeAsync(share))
            return WithoutAttempt(delivery, Transition.Released());
        var mayGo = delivery.DataBytes > LargeBytes ? _signing : null;
        if (mayGo is not null)
            await mayGo.WaitAsync(_abort.Token);
        try
        {
            return await MakeAsync(delivery, share, lanes, subscriber, Signed, Written);
        }
        finally
        {
            GoOn();
        }

        void Signed()
        {
            if (mayGo is not null)
                _ = WriteAsync();
        }

        async Task WriteAsync()
        {
            await Task.Delay(s_writing, time);
            GoOn();
        }

        void Written()
        {
            GoOn();
            letGo();
        }

        void GoOn() => Interlocked.Exchange(ref mayGo, null)?.Release();
    }

    private async Task<Completed?> MakeAsync(
        DueDelivery delivery, PayloadShare share, Lanes lanes, Subscriber subscriber, Action signed, Action letGo)
    {
        // Too late to be sure to end within the lease.
        if (time.GetElapsedTime(delivery.ClaimedAt) + options.Value.TimeoutOf(subscriber.Retry) + DeliveryOptions.LeaseMargin
            >= options.Value.Lease)
            return null;
        if (await EventOfAsync(share) is not { } e)
        {
            Log.EventIsGone(logger, TypeId.Format(TypeId.Delivery, delivery.Id), TypeId.Format(TypeId.Event, delivery.EventId));
            return WithoutAttempt(delivery, Transition.Cancelled());
        }

        if (Unsent(delivery, e, subscriber) is { } unsent)
            return unsent;

        using var scope = Log.Attempt(logger, e.CorrelationId);
        var number = delivery.RetryCount + 1;
        using var activity = DeliveryTraces.StartAttempt(delivery, e, subscriber.Url, number);
        // Where nothing is traced, lines are still found by the trace that the producer began.
        using var trace = activity is null && e.TraceParent is { Length: 55 } parent ? Log.Trace(logger, parent[3..35]) : null;
        try
        {
            return await SendAsync(delivery, share, lanes, signed, letGo, subscriber, e, number, activity);
        }
        catch (Exception exception)
        {
            // Here, and not only by the caller, so that the line is in the attempt's trace.
            activity?.SetStatus(ActivityStatusCode.Error, exception.Message);
            Log.Broken(logger, exception, TypeId.Format(TypeId.Delivery, delivery.Id));
            return null;
        }
    }

    /// <summary>What becomes of it where it is not to be sent now: its event has expired, or takes its place in the order first.</summary>
    private Completed? Unsent(DueDelivery delivery, StoredEvent e, Subscriber subscriber)
    {
        if (e.ExpiresAt <= time.GetUtcNow())
            return WithoutAttempt(delivery, Transition.Expired(failed: false));
        return e.DeliverAt is { } deliverAt && delivery is { OrderKey: null, Test: false }
            && subscriber.OrderKeyOf(e.Subject) is { } key ? Joining(delivery, key, deliverAt) : null;
    }

    /// <summary>False when the process ends before.</summary>
    private async Task<bool> IsMadeAsync(PayloadShare share)
    {
        try
        {
            await share.ReadAsync(_abort.Token);
            return true;
        }
        catch (OperationCanceledException)
        {
            return false;
        }
    }

    /// <summary>Without its data, which nobody keeps while an answer is waited for.</summary>
    private async Task<StoredEvent?> EventOfAsync(PayloadShare share) => (await share.ReadAsync(_abort.Token))?.Event;

    private async Task<Completed> SendAsync(
        DueDelivery delivery, PayloadShare share, Lanes lanes, Action signed, Action letGo, Subscriber subscriber, StoredEvent e,
        int number, Activity? activity)
    {
        var started = time.GetTimestamp();
        // A replay and a test begin long after the event: they say nothing of how fast events get through.
        var counts = delivery is { IsReplay: false, Test: false };
        if (number == 1 && counts)
            metrics.FirstAttempt(Since(delivery.EventId, e));
        AttemptResult result;
        metrics.AttemptStarted();
        try
        {
            result = await sender.SendAsync(delivery, share, signed, letGo, subscriber, number, activity, _abort.Token);
        }
        catch (OperationCanceledException)
        {
            return WithoutAttempt(delivery, Transition.Released());
        }
        finally
        {
            metrics.AttemptEnded();
        }

        // Before the attempt is there to be read, by who waits for it.
        if (result.Certificate is { } certificate)
            await KeepAsync(certificate);
        var policy = subscriber.Retry is { } own ? options.Value.Retry.With(own) : options.Value.Retry;
        var transition = RetrySchedule.After(
            policy, number, result.Outcome, result.StatusCode, result.RetryAfter,
            Since(delivery.Id, e), Random.Shared.NextDouble(), e.ExpiresAt - time.GetUtcNow());
        if (delivery.OrderKey is not null)
            transition = RetrySchedule.OfHead(transition, number, subscriber.FailingHead, subscriber.FailingHeadAttempts);
        if (delivery.Test && result.Outcome != AttemptOutcome.Delivered)
            transition = Transition.Cancelled();
        metrics.Attempted(result);
        if (!delivery.Test)
            Learn(lanes, subscriber, started, result, policy.MaxRetryAfter);
        if (result.Outcome == AttemptOutcome.Delivered && counts)
            metrics.Delivered(Since(delivery.EventId, e));
        DeliveryTraces.Attempted(activity, result, transition.Status);
        if (transition.Status != DeliveryStatus.Succeeded)
        {
            Log.Failed(logger, TypeId.Format(TypeId.Delivery, delivery.Id), TypeId.Format(TypeId.Event, delivery.EventId),
                TypeId.Format(TypeId.Subscription, delivery.SubscriptionId), number, SnakeCase<AttemptOutcome>.Of(result.Outcome),
                result.Cause, SnakeCase<DeliveryStatus>.Of(transition.Status), transition.Delay.TotalSeconds);
        }
        var made = new AttemptMade(
            TypeId.NewGuid(), number, TimeSpan.Zero, result.Duration, result.Outcome, result.Error, result.StatusCode,
            result.ResponseHeaders is { } headers ? JsonSerializer.Serialize(headers) : null, result.ResponseBody);
        // What is not recorded can't be linked to.
        var traceParent = activity is { Recorded: true } && transition.Status == DeliveryStatus.Pending ? activity.Id : null;
        // A test asks how it is now, and has its answer.
        return Completed(delivery, transition, made, traceParent, started, delivery.Test ? null : subscriber.Revision);
    }

    private async Task KeepAsync(ReceiverCertificate certificate)
    {
        await using var batch = dataSource.Pool.CreateBatch();
        batch.BatchCommands.Add(ReceiverCertificates.Keep(certificate));
        await batch.ExecuteNonQueryAsync();
    }

    /// <summary>What an attempt says of how much its receiver stands, which counts before the next one starts.</summary>
    private void Learn(Lanes lanes, Subscriber subscriber, long started, AttemptResult result, TimeSpan longest)
    {
        circuits.Ended(subscriber, started, result.Outcome, result.StatusCode);
        if (result.Outcome == AttemptOutcome.Delivered)
            lanes.Widen(subscriber.Id);
        else if (result.Outcome == AttemptOutcome.Timeout || result.StatusCode == 429)
            lanes.Narrow(subscriber.Id, started);
        if (result.Pause is { } pause)
            lanes.Hold(subscriber.Id, pause < longest ? pause : longest);
    }

    private Completed WithoutAttempt(DueDelivery delivery, Transition transition) =>
        Completed(delivery, transition, null, null, time.GetTimestamp(), null);

    private static Completed Completed(
        DueDelivery delivery, Transition transition, AttemptMade? attempt, string? traceParent, long startedAt, int? revision) => new(
        new DeliveryResult(
            delivery.TenantId, delivery.Id, delivery.EventId, delivery.SubscriptionId, delivery.Claim, transition.Status, attempt)
        {
            Delay = transition.Delay,
            CountsAsFailure = transition.CountsAsFailure,
            Reason = transition.Reason,
            OrderKey = delivery.OrderKey,
            HoldsKey = transition.HoldsKey,
            IsReplay = delivery.IsReplay,
            TraceParent = traceParent,
            Revision = revision,
            SubscriptionIsGone = transition.SubscriptionIsGone,
        },
        startedAt);

    /// <summary>Its event's time has come; what its key has goes before it.</summary>
    private Completed Joining(DueDelivery delivery, string key, DateTimeOffset deliverAt)
    {
        var released = WithoutAttempt(delivery, Transition.Released());
        return released with { Result = released.Result with { OrderKey = key, JoinsOrderAt = deliverAt } };
    }

    /// <summary>Since something was made of an event, or since the event's time, if that came later.</summary>
    private TimeSpan Since(Guid made, StoredEvent e)
    {
        var since = time.GetUtcNow() - TypeId.CreatedAt(made);
        if (e.DeliverAt is not { } deliverAt)
            return since;
        var due = time.GetUtcNow() - deliverAt;
        return due < TimeSpan.Zero ? TimeSpan.Zero : due < since ? due : since;
    }

    private static partial class Log
    {
        // As in the API's requests: in every line that is written during an attempt.
        private static readonly Func<ILogger, string, IDisposable?> AttemptScope =
            LoggerMessage.DefineScope<string>("CorrelationId:{CorrelationId}");

        private static readonly Func<ILogger, string, IDisposable?> TraceScope = LoggerMessage.DefineScope<string>("TraceId:{TraceId}");

        public static IDisposable? Attempt(ILogger logger, string correlationId) => AttemptScope(logger, correlationId);

        public static IDisposable? Trace(ILogger logger, string traceId) => TraceScope(logger, traceId);

        [LoggerMessage(EventId = 2, Level = LogLevel.Error, Message = "Delivery {DeliveryId} broke off; its lease brings it back")]
        public static partial void Broken(ILogger logger, Exception exception, string deliveryId);

        [LoggerMessage(EventId = 5, Level = LogLevel.Warning, Message = "Delivery {DeliveryId} waits for Postgres: {Problem}")]
        public static partial void Unread(ILogger logger, string deliveryId, string problem);

        [LoggerMessage(
            EventId = 4, Level = LogLevel.Warning, Message = "Delivery {DeliveryId} is cancelled: its event {EventId} is no longer kept")]
        public static partial void EventIsGone(ILogger logger, string deliveryId, string eventId);

        [LoggerMessage(EventId = 3, Level = LogLevel.Information,
            Message =
                "delivery.attempted {DeliveryId} of {EventId} to {SubscriptionId}: attempt {Attempt} ended {Outcome} ({Cause}), now "
                    + "{Status}, due in {DelaySeconds} s")]
        public static partial void Failed(
            ILogger logger, string deliveryId, string eventId, string subscriptionId, int attempt, string outcome,
            string cause, string status, double delaySeconds);
    }
}
