using System.Diagnostics;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Diagnostics;
using Npgsql;
using Triggers.Api.Errors;
using Triggers.Api.Telemetry;
using Triggers.Core;
using Triggers.EventLog;

namespace Triggers.Api.Http;

/// <summary>The body of every error: RFC 9457, the same in Production and Development, never a stack trace.</summary>
internal sealed record Problem(
    string Type,
    string Title,
    int Status,
    string Detail,
    string Code,
    IReadOnlyList<FieldError> Errors,
    string TraceId,
    string CorrelationId)
{
    /// <summary>Only with <c>batch_refused</c>: what was wrong with each event.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<BatchItem>? Items { get; init; }

    /// <summary>Only with <c>batch_refused</c>: 0.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? Accepted { get; init; }

    /// <summary>Only with <c>batch_refused</c>: how many events the batch has.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? Refused { get; init; }
}

/// <summary>The one place that answers errors: ours, the framework's, and those of what we depend on.</summary>
internal sealed partial class Problems(ILogger<Problems> logger) : IExceptionHandler
{
    /// <summary>
    /// Answers what was thrown. Of an answer that had begun the framework aborts the connection: half of it must not look like a whole
    /// one.
    /// </summary>
    public async ValueTask<bool> TryHandleAsync(HttpContext context, Exception exception, CancellationToken cancellationToken)
    {
        var deadline = context.Features.Get<Deadline>();
        if (deadline?.ClientIsGone is true && exception is OperationCanceledException or IOException or NpgsqlException)
        {
            // Nobody is there to read an answer.
            context.Response.StatusCode = StatusCodes.Status499ClientClosedRequest;
            context.Abort();
            return true;
        }
        await AnswerAsync(context, deadline, exception);
        return true;
    }

    /// <summary>Gives an error that the framework answered with a status and nothing else its body.</summary>
    public static Task OfStatusAsync(StatusCodeContext status)
    {
        var context = status.HttpContext;
        var code = ErrorCodes.OfStatus(context.Response.StatusCode);
        if (code != ErrorCodes.MethodNotAllowed)
            context.Response.Headers.Remove("Allow");
        else if (context.Response.Headers.Allow.ToString() is var allowed && allowed.Contains("GET", StringComparison.Ordinal))
            context.Response.Headers.Allow = $"{allowed}, HEAD";
        return WriteAsync(context, code, Explain(context, code));
    }

    private static string Explain(HttpContext context, ErrorCode code) => code.Status switch
    {
        404 => "Nothing is at this path.",
        405 => $"This path does not know {context.Request.Method}.",
        _ => $"{code.Title}.",
    };

    private Task AnswerAsync(HttpContext context, Deadline? deadline, Exception e)
    {
        switch (e)
        {
            case ApiException problem:
                return WriteAsync(context, problem);
            case BadHttpRequestException bad:
                return WriteAsync(context, ErrorCodes.OfStatus(bad.StatusCode), bad.Message);
            case TenantLimitException:
                return WriteAsync(context, new ApiException(ErrorCodes.TooManyBytes, e.Message) { RetryAfterSeconds = 1 });
            case EventLogUnavailableException:
                return WriteAsync(context, new ApiException(ErrorCodes.LogUnavailable, e.Message) { RetryAfterSeconds = 1 });
        }

        if (deadline?.Passed is true || Storage.IsAway(e))
        {
            Log.StorageAway(logger, e.Message);
            return WriteAsync(context, StorageUnavailable());
        }

        Log.Unexpected(logger, e, context.Request.Method, EndpointOf(context)?.DisplayName);
        return WriteAsync(context, ErrorCodes.InternalError, "The mistake is ours; the correlation id finds it in the logs.");
    }

    /// <summary>Answers, and ends the answer, while the request still runs; it is the last of its connection.</summary>
    public static async Task AnswerLateAsync(HttpContext context)
    {
        Log.StorageAway(context.RequestServices.GetRequiredService<ILogger<Problems>>(), "it answers no cancellation either");
        context.Response.Headers.Connection = "close";
        await WriteAnswerAsync(context, StorageUnavailable());
        await context.Response.CompleteAsync();
    }

    private static ApiException StorageUnavailable() =>
        new(ErrorCodes.StorageUnavailable, "The database did not answer in time.") { RetryAfterSeconds = 1 };

    /// <summary>Answers an error.</summary>
    public static Task WriteAsync(HttpContext context, ErrorCode code, string detail) =>
        WriteAsync(context, new ApiException(code, detail));

    /// <summary>Answers an error.</summary>
    public static Task WriteAsync(HttpContext context, ApiException e) =>
        context.Features.Get<Deadline>()?.MayAnswer() is false ? Task.CompletedTask : WriteAnswerAsync(context, e);

    private static Task WriteAnswerAsync(HttpContext context, ApiException e)
    {
        // Of a batch nothing of which was accepted, every event was counted by itself.
        if (e.Code != ErrorCodes.BatchRefused && EndpointOf(context)?.Metadata.GetMetadata<TakesEvents>() is not null)
            context.RequestServices.GetRequiredService<ApiMetrics>().Refused(e.Code.Code);
        var response = context.Response;
        response.StatusCode = e.Code.Status;
        response.Headers[Correlation.Header] = context.CorrelationId();
        if (e.RetryAfterSeconds is { } seconds)
            response.Headers.RetryAfter = seconds.ToString();
        var problem = new Problem(
            $"urn:triggers:error:{e.Code.Code}", e.Code.Title, e.Code.Status, e.Message, e.Code.Code, e.Errors,
            Activity.Current?.TraceId.ToHexString() ?? context.TraceIdentifier, context.CorrelationId())
        { Items = e.Batch?.Items, Accepted = e.Batch?.Accepted, Refused = e.Batch?.Refused };
        return response.WriteAsJsonAsync(problem, Json.Options, "application/problem+json", CancellationToken.None);
    }

    // The framework takes it away before an exception is handled.
    private static Endpoint? EndpointOf(HttpContext context) =>
        context.GetEndpoint() ?? context.Features.Get<IExceptionHandlerFeature>()?.Endpoint;

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "Answered 503, Postgres is away: {Problem}")]
        public static partial void StorageAway(ILogger logger, string problem);

        [LoggerMessage(EventId = 2, Level = LogLevel.Error, Message = "Answered 500 to {Method} {Endpoint}")]
        public static partial void Unexpected(ILogger logger, Exception exception, string method, string? endpoint);
    }
}

/// <summary>The framework's exception handler and status code pages, with our answers.</summary>
internal static class ProblemsSetup
{
    public static void AddProblems(this IServiceCollection services) => services.AddProblemDetails().AddExceptionHandler<Problems>();

    public static void UseProblems(this WebApplication app)
    {
        app.UseExceptionHandler();
        app.UseStatusCodePages(Problems.OfStatusAsync);
    }
}

/// <summary>Marks the operations whose refusals are counted.</summary>
internal sealed class TakesEvents
{
    public static readonly TakesEvents Instance = new();
}
