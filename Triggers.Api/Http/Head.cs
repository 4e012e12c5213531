namespace Triggers.Api.Http;

/// <summary>HEAD answers what GET would, on every path. The server leaves out the body.</summary>
internal static class Head
{
    public static async Task AsGetAsync(HttpContext context, RequestDelegate next)
    {
        if (!HttpMethods.IsHead(context.Request.Method))
        {
            await next(context);
            return;
        }
        context.Request.Method = HttpMethods.Get;
        try
        {
            await next(context);
        }
        finally
        {
            context.Request.Method = HttpMethods.Head;
        }
    }
}
