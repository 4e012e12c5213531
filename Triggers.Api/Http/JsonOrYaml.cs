using System.Reflection;
using System.Text.Json;
using Microsoft.AspNetCore.Http.Metadata;

namespace Triggers.Api.Http;

/// <summary>Answers 200 with JSON, or with YAML to who would rather have that (<c>Accept</c>).</summary>
internal sealed class JsonOrYaml<T>(T value) : IResult, IEndpointMetadataProvider
{
    /// <inheritdoc/>
    public static void PopulateMetadata(MethodInfo method, EndpointBuilder builder) =>
        builder.Metadata.Add(new ProducesResponseTypeMetadata(StatusCodes.Status200OK, typeof(T), ["application/json"]));

    /// <inheritdoc/>
    public Task ExecuteAsync(HttpContext httpContext)
    {
        if (!Accept.Prefers(httpContext, Yaml.MediaType))
            return TypedResults.Ok(value).ExecuteAsync(httpContext);
        return TypedResults.Text(Yaml.FromJson(JsonSerializer.SerializeToNode(value, Json.Options)), Yaml.MediaType)
            .ExecuteAsync(httpContext);
    }
}
