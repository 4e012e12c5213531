using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Deliveries;
using Triggers.Api.Errors;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.Subscriptions;

/// <summary>How a check ended.</summary>
internal enum CheckResult
{
    /// <summary>As it should be.</summary>
    Passed,

    /// <summary>It works, and should be looked at.</summary>
    Warned,

    /// <summary>Not as it must be.</summary>
    Failed,

    /// <summary>Not made, because of what another found.</summary>
    Skipped,
}

/// <summary>What is checked of a receiver.</summary>
internal enum CheckName
{
    /// <summary>Its name resolves, it may be sent to, and an HTTP answer comes.</summary>
    Reachable,

    /// <summary>The connection is secure, and its certificate is trusted and of its name.</summary>
    Tls,

    /// <summary>A genuine webhook is answered 2xx.</summary>
    Accepts,

    /// <summary>A webhook that somebody else signed is answered with no 2xx.</summary>
    RefusesForged,

    /// <summary>A webhook signed an hour ago is answered with no 2xx.</summary>
    RefusesOld,

    /// <summary>It answers in less than half of the time it has.</summary>
    Latency,
}

/// <summary>One check.</summary>
/// <param name="Name">What was checked.</param>
/// <param name="Result">How it ended.</param>
/// <param name="Detail">For people.</param>
internal sealed record VerificationCheck(CheckName Name, CheckResult Result, string Detail);

/// <summary>What came of verifying a receiver.</summary>
/// <param name="Passed">Whether no check failed.</param>
/// <param name="Certificate">The receiver's; null where none was seen.</param>
/// <param name="Checks">All of them, in this order.</param>
/// <param name="Attempts">The requests that were made for them.</param>
internal sealed record VerificationView(
    bool Passed, ReceiverCertificateView? Certificate, IReadOnlyList<VerificationCheck> Checks, IReadOnlyList<AttemptView> Attempts);

/// <summary>The certificate of a receiver.</summary>
/// <param name="Subject">Whom it names.</param>
/// <param name="Issuer">Who vouches for it.</param>
/// <param name="Thumbprint">Its SHA-256, in hexadecimal.</param>
/// <param name="NotBefore">Since when it is valid.</param>
/// <param name="ExpiresAt">Until when.</param>
internal sealed record ReceiverCertificateView(
    string Subject, string Issuer, string Thumbprint, DateTimeOffset NotBefore, DateTimeOffset ExpiresAt)
{
    private static readonly TimeSpan s_near = TimeSpan.FromDays(14);

    public static ReceiverCertificateView Of(ReceiverCertificate c) => new(c.Subject, c.Issuer, c.Thumbprint, c.NotBefore, c.ExpiresAt);

    /// <summary>Whether it should have been renewed by then: those that live for days are renewed days before.</summary>
    public bool ExpiresSoon(DateTimeOffset now) => ExpiresAt - now < s_near && ExpiresAt - now < (ExpiresAt - NotBefore) / 3;
}

/// <summary>
/// <c>POST /subscriptions/{id}/verify</c>: what an operator wants to know before go-live, found out by the delivery service with the
/// requests it would make, from where it would make them.
/// </summary>
internal static class SubscriptionVerification
{
    /// <summary>How many test events it sends.</summary>
    public const int Events = 3;

    private static readonly TimeSpan s_margin = TimeSpan.FromSeconds(10);

    public static async Task<Ok<VerificationView>> SendAsync(
        string id, HttpContext context, Caller caller, TriggersDbContext db, NpgsqlDataSource dataSource, ConcurrencyLimits limits,
        IOptions<DeliveryDefaults> defaults, TimeProvider time)
    {
        var key = Ids.Subscription(id);
        var subscription = await SubscriptionsApi.Living(db, caller).FirstOrDefaultAsync(s => s.Id == key, context.RequestAborted)
            ?? throw ApiException.NotFound("subscription");
        using var place = limits.Test(key);
        var timeout = subscription.Retry?.Timeout ?? defaults.Value.AttemptTimeout;
        var attempts = new List<Attempt>();
        foreach (var type in new[] { TestEvents.Genuine, TestEvents.Forged, TestEvents.Old })
        {
            var (_, _, attempt) = await SubscriptionTest.AttemptAsync(
                type, key, context, caller, db, dataSource, timeout + s_margin, time);
            attempts.Add(attempt);
            // What can't be asked says nothing of what it would answer.
            if (attempt.StatusCode is null)
                break;
        }
        var certificate = attempts[0].StatusCode is null || !SubscriptionsApi.IsSecure(subscription.Url) ? null
            : await db.ReceiverCertificates.Where(c => c.SubscriptionId == key && c.TenantId == caller.TenantId)
                .Select(c => ReceiverCertificateView.Of(c)).FirstOrDefaultAsync(context.RequestAborted);
        var checks = Check(subscription.Url, timeout, attempts, certificate, time.GetUtcNow());
        return TypedResults.Ok(new VerificationView(
            checks.All(check => check.Result != CheckResult.Failed), certificate, checks, [.. attempts.Select(AttemptView.Of)]));
    }

    private static List<VerificationCheck> Check(
        string url, TimeSpan timeout, List<Attempt> attempts, ReceiverCertificateView? certificate, DateTimeOffset now)
    {
        var first = attempts[0];
        var answered = first.StatusCode is not null;
        var accepts = first.Outcome == AttemptOutcome.Delivered;
        return
        [
            new(CheckName.Reachable, answered ? CheckResult.Passed : CheckResult.Failed,
                answered ? "An answer came." : $"No answer came: {first.Error}."),
            Tls(url, first, certificate, now),
            new(CheckName.Accepts, accepts ? CheckResult.Passed : answered ? CheckResult.Failed : CheckResult.Skipped,
                answered ? $"A genuine webhook was answered {first.StatusCode}." : "No answer came."),
            Refuses(CheckName.RefusesForged, "signed by somebody else", accepts, attempts.ElementAtOrDefault(1)),
            Refuses(CheckName.RefusesOld, "signed an hour ago", accepts, attempts.ElementAtOrDefault(2)),
            Latency(timeout, attempts),
        ];
    }

    private static VerificationCheck Tls(string url, Attempt first, ReceiverCertificateView? certificate, DateTimeOffset now)
    {
        if (!SubscriptionsApi.IsSecure(url))
            return new(CheckName.Tls, CheckResult.Warned, "The address is http: what is sent can be read, and changed, on its way.");
        if (first.Outcome == AttemptOutcome.TlsFailure)
            return new(CheckName.Tls, CheckResult.Failed, $"There is no secure connection: {first.Error}.");
        if (first.StatusCode is null)
            return new(CheckName.Tls, CheckResult.Skipped, "No answer came.");
        const string secure = "The connection is secure, and the certificate trusted and of this name";
        if (certificate is null)
            return new(CheckName.Tls, CheckResult.Passed, $"{secure}.");
        var (end, days) = (certificate.ExpiresAt, (certificate.ExpiresAt - now).TotalDays);
        return certificate.ExpiresSoon(now)
            ? new(CheckName.Tls, CheckResult.Warned,
                FormattableString.Invariant($"{secure}, but that expires in {days:0.#} days, on {end:yyyy-MM-dd}."))
            : new(CheckName.Tls, CheckResult.Passed, FormattableString.Invariant($"{secure}, until {end:yyyy-MM-dd}."));
    }

    private static VerificationCheck Refuses(CheckName name, string what, bool accepts, Attempt? attempt) => attempt switch
    {
        null => new(name, CheckResult.Skipped, "No answer came."),
        { Outcome: AttemptOutcome.Delivered } =>
            new(name, CheckResult.Failed, $"A webhook {what} was accepted, with {attempt.StatusCode}."),
        // Who refuses everything refuses nothing in particular.
        _ when !accepts => new(name, CheckResult.Skipped, "A genuine webhook was not accepted either."),
        { StatusCode: null } => new(name, CheckResult.Failed, $"A webhook {what} was not answered: {attempt.Error}."),
        _ => new(name, CheckResult.Passed, $"A webhook {what} was answered {attempt.StatusCode}."),
    };

    private static VerificationCheck Latency(TimeSpan timeout, List<Attempt> attempts)
    {
        var slowest = attempts.Max(attempt => attempt.DurationMs);
        var times = string.Join(", ", attempts.Select(attempt => $"{attempt.DurationMs} ms"));
        return attempts[0].StatusCode is null ? new(CheckName.Latency, CheckResult.Skipped, "No answer came.")
            : new(CheckName.Latency, slowest * 2 < timeout.TotalMilliseconds ? CheckResult.Passed : CheckResult.Warned,
                $"It took {times}, of {timeout.TotalSeconds:0.#} s that an attempt may take.");
    }
}
