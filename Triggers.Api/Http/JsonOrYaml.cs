using System.Reflection;
using System.Text.Json;
using Microsoft.AspNetCore.Http.Metadata;

namespace Triggers.Api.Http;

/// <summary>Answers 200 with JSON, or with YAML to who would rather have that (<c>Accept</c>).</summary>
internal sealed class JsonOrYaml<T>(T value) : IResult, IEndpointMetadataProvider
{
    private static readonly Microsoft.Extensions.Primitives.StringSegment s_yaml = Yaml.MediaType;
    private static readonly Microsoft.Extensions.Primitives.StringSegment s_json = "application/json";

    /// <inheritdoc/>
    public static void PopulateMetadata(MethodInfo method, EndpointBuilder builder) =>
        builder.Metadata.Add(new ProducesResponseTypeMetadata(StatusCodes.Status200OK, typeof(T), ["application/json"]));

    /// <inheritdoc/>
    public Task ExecuteAsync(HttpContext httpContext)
    {
        httpContext.Response.Headers.Vary = "Accept";
        if (!WantsYaml(httpContext.Request))
            return TypedResults.Ok(value).ExecuteAsync(httpContext);
        return TypedResults.Text(Yaml.FromJson(JsonSerializer.SerializeToNode(value, Json.Options)), Yaml.MediaType)
            .ExecuteAsync(httpContext);
    }

    private static bool WantsYaml(HttpRequest request) => request.GetTypedHeaders().Accept
        .OrderByDescending(type => type.Quality ?? 1)
        .FirstOrDefault(type => type.MediaType.Equals(s_yaml, StringComparison.OrdinalIgnoreCase)
            || type.MediaType.Equals(s_json, StringComparison.OrdinalIgnoreCase) || type.MatchesAllTypes)
        ?.MediaType.Equals(s_yaml, StringComparison.OrdinalIgnoreCase) is true;
}
