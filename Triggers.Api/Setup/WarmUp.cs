using Microsoft.AspNetCore.Http.Features;
using Triggers.Api.Auth;
using Triggers.Api.Http;
using Triggers.Api.Operations;
using Triggers.Core;
using Triggers.EventLog;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Setup;

/// <summary>
/// Does once what requests do, before this process says that it is ready: a first request pays for compiling code and queries and for
/// opening connections, which on a busy machine takes longer than a request may. Nothing is written, and nothing depends on its success.
/// </summary>
internal sealed partial class WarmUp(
    Readiness readiness, Bootstrap bootstrap, IServiceScopeFactory scopes,
    EndpointDataSource endpoints, IEventLog log, TimeProvider time, ILogger<WarmUp> logger)
    : BackgroundService
{
    private static readonly TimeSpan AtMost = TimeSpan.FromSeconds(20);

    private readonly TaskCompletionSource<RequestDelegate> _pipeline = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _done = new(TaskCreationOptions.RunContinuationsAsynchronously);

    // A tenant that has nothing.
    private readonly Caller _nobody = new(
        Guid.Empty, Guid.Empty, new HashSet<string>(), null, new Limits(Guid.Empty, new Rate(1, 1), null, null, null, Guid.Empty, null),
        0);

    /// <summary>Takes the middleware that every request goes through.</summary>
    public RequestDelegate Use(RequestDelegate pipeline)
    {
        _pipeline.TrySetResult(pipeline);
        return pipeline;
    }

    public override Task StartAsync(CancellationToken cancellationToken)
    {
        readiness.HoldUntil(_done.Task);
        return base.StartAsync(cancellationToken);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        await bootstrap.Done.WaitAsync(stoppingToken);
        try
        {
            await RunAsync(stoppingToken).WaitAsync(AtMost, stoppingToken);
        }
        // Also a deadline of its own requests, on a busy machine.
        catch (Exception e) when (!stoppingToken.IsCancellationRequested)
        {
            Log.NotWarm(logger, e.Message);
        }
        _done.TrySetResult();
    }

    private async Task RunAsync(CancellationToken cancellationToken)
    {
        var pipeline = await _pipeline.Task.WaitAsync(cancellationToken);
        // An unknown key: everything up to the handlers, and the answering of an error.
        await SendAsync("GET", "/events", pipeline);
        foreach (var endpoint in endpoints.Endpoints.OfType<RouteEndpoint>().Where(e => e.Metadata.GetMetadata<Operation>() is not null))
        {
            // Lists of a tenant that has nothing, and an event that is none: every kind of query is run, and nothing is written.
            var path = endpoint.RoutePattern.RawText!;
            var isRead = endpoint.Metadata.GetRequiredMetadata<HttpMethodMetadata>().HttpMethods.Contains("GET");
            if (isRead ? !path.Contains('{') : path == "/events")
                await SendAsync(isRead ? "GET" : "POST", path, context => HandleAsync(endpoint, context));
        }
        await log.AppendAsync(
            new AppendRequest(Guid.Empty, TypeId.NewGuid(), "warm-up", null, null, []), new TimeLimit(time, RequestBudget.Request),
            cancellationToken);
    }

    private async Task HandleAsync(RouteEndpoint endpoint, HttpContext context)
    {
        using var deadline = Deadline.Start(context);
        context.SetEndpoint(endpoint);
        context.Features.Set(_nobody);
        await endpoint.RequestDelegate!(context);
    }

    private async Task SendAsync(string method, string path, RequestDelegate to)
    {
        await using var scope = scopes.CreateAsyncScope();
        var response = new Response();
        var context = new DefaultHttpContext { RequestServices = scope.ServiceProvider };
        context.Features.Set<IHttpResponseFeature>(response);
        context.Request.Method = method;
        context.Request.Path = path;
        context.Request.ContentType = "application/json";
        context.Request.Headers["X-API-Key"] = "warm-up";
        try
        {
            await to(context);
        }
        catch (Exception e) when (e is Errors.ApiException)
        {
            // Refused, as it should be.
        }
        finally
        {
            await response.CompleteAsync();
        }
    }

    /// <summary>What is registered for the end of a request, is done at its end.</summary>
    private sealed class Response : HttpResponseFeature
    {
        private readonly Stack<(Func<object, Task> Callback, object State)> _completed = [];

        public override void OnCompleted(Func<object, Task> callback, object state) => _completed.Push((callback, state));

        public async Task CompleteAsync()
        {
            while (_completed.TryPop(out var completed))
                await completed.Callback(completed.State);
        }
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "The first requests may be slow: warming up ended with {Problem}")]
        public static partial void NotWarm(ILogger logger, string problem);
    }
}
