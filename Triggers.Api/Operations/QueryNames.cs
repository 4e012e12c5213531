using Triggers.Api.Errors;
using Triggers.Api.Requests;

namespace Triggers.Api.Operations;

/// <summary>
/// The names in a query are those of the operation, each once. A misspelt filter that were ignored would answer something else.
/// </summary>
internal static class QueryNames
{
    /// <summary>Remembers each that is not.</summary>
    public static void Check(HttpContext context, FieldErrors errors)
    {
        if (context.Request.Query.Count == 0)
            return;
        var known = context.GetEndpoint()!.Metadata.GetRequiredMetadata<Operation>().Query;
        foreach (var (name, values) in context.Request.Query)
        {
            if (known.All(p => p.Name != name))
                errors.Add("?" + Fields.Shorten(name), "There is no such parameter here.");
            else if (values.Count > 1)
                errors.Add("?" + Fields.Shorten(name), "The parameter comes twice.");
        }
    }

    /// <summary>The same for operations that are no list: lists name what else is wrong with a query, too.</summary>
    public static ValueTask<object?> CheckAsync(EndpointFilterInvocationContext invocation, EndpointFilterDelegate next)
    {
        var context = invocation.HttpContext;
        if (context.GetEndpoint()!.Metadata.GetMetadata<Operation>() is { IsList: false })
        {
            var errors = new FieldErrors("The query has mistakes; see errors.");
            Check(context, errors);
            errors.ThrowIfAny();
        }
        return next(invocation);
    }
}
