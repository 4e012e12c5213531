using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.OpenApi;
using Microsoft.Net.Http.Headers;
using Microsoft.OpenApi;
using Triggers.Api.Http;

namespace Triggers.Api.OpenApi;

/// <summary>The OpenAPI document, made once: everybody may ask for it, and making it costs more than any other answer.</summary>
internal sealed class ContractDocument([FromKeyedServices(ContractDocument.Name)] IOpenApiDocumentProvider provider)
{
    public const string Name = "v1";
    public const string Path = "/openapi/v1.json";

    private readonly Lazy<Task<(byte[] Json, EntityTagHeaderValue Tag)>> _document = new(async () =>
    {
        var document = await provider.GetOpenApiDocumentAsync();
        var json = Encoding.UTF8.GetBytes(await document.SerializeAsJsonAsync(OpenApiSpecVersion.OpenApi3_1));
        return (json, new EntityTagHeaderValue($"\"{Convert.ToHexStringLower(SHA256.HashData(json).AsSpan(..8))}\""));
    });

    /// <summary>Answers it, with an <c>ETag</c>; 304 to whoever has it.</summary>
    public static async Task<IResult> GetAsync(HttpContext context, ContractDocument contract)
    {
        // On a process that is cold and busy, making it takes longer than anybody may wait for the database.
        Deadline.Of(context).Pause();
        var (json, tag) = await contract._document.Value;
        context.Response.Headers.CacheControl = "public, max-age=60";
        return TypedResults.Bytes(json, "application/json; charset=utf-8", entityTag: tag);
    }
}
