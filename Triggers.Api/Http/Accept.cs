using Microsoft.Extensions.Primitives;

namespace Triggers.Api.Http;

/// <summary>What a request would have its answer in (<c>Accept</c>).</summary>
internal static class Accept
{
    private static readonly StringSegment s_json = "application/json";

    /// <summary>Whether whoever asks would rather have a media type than JSON. The answer says that it depends on that.</summary>
    public static bool Prefers(HttpContext context, StringSegment mediaType)
    {
        context.Response.Headers.Vary = "Accept";
        return context.Request.GetTypedHeaders().Accept
            .OrderByDescending(type => type.Quality ?? 1)
            .FirstOrDefault(type => type.MediaType.Equals(mediaType, StringComparison.OrdinalIgnoreCase)
                || type.MediaType.Equals(s_json, StringComparison.OrdinalIgnoreCase) || type.MatchesAllTypes)
            ?.MediaType.Equals(mediaType, StringComparison.OrdinalIgnoreCase) is true;
    }
}
