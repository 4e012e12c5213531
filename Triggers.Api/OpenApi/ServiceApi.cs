using Triggers.Api.Operations;

namespace Triggers.Api.OpenApi;

/// <summary>What is where.</summary>
/// <param name="Name">Of the service.</param>
/// <param name="Reference">For people.</param>
/// <param name="OpenApi">For machines.</param>
/// <param name="Health">How it is.</param>
internal sealed record ServiceView(string Name, string Reference, string OpenApi, string Health);

/// <summary><c>GET /</c>: for whoever knows the address and nothing else.</summary>
internal static class ServiceApi
{
    private static readonly ServiceView View = new("Triggers", "/scalar", ContractDocument.Path, "/health");

    private static readonly Operation Get = new(
        "getService", "Health", "See what this is", "Open to all. Says where the reference is; so does `Link` (RFC 8631).")
    {
        AnswerExample = """{"name":"Triggers","reference":"/scalar","openApi":"/openapi/v1.json","health":"/health"}""",
    };

    /// <summary>Maps <c>GET /</c>.</summary>
    public static void MapService(this IEndpointRouteBuilder app) => app.MapGet("/", (HttpResponse response) =>
    {
        response.Headers.Link =
            $"<{View.OpenApi}>; rel=\"service-desc\", <{View.Reference}>; rel=\"service-doc\", <{View.Health}>; rel=\"status\"";
        return TypedResults.Ok(View);
    }).AllowAnonymous().WithMetadata(Get);
}
