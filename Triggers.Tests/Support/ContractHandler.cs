using Microsoft.AspNetCore.WebUtilities;

namespace Triggers.Tests.Support;

/// <summary>Holds what goes through a client against the contract. A violation fails the test that sent the request.</summary>
internal sealed class ContractHandler(HttpMessageHandler inner, Contract? contract = null) : DelegatingHandler(inner)
{
    protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
    {
        var sent = request.Content is null ? [] : await request.Content.ReadAsByteArrayAsync(cancellationToken);
        var response = await base.SendAsync(request, cancellationToken);
        var exchange = new Exchange
        {
            Method = request.Method.Method,
            Path = request.RequestUri!.AbsolutePath,
            Query = QueryHelpers.ParseQuery(request.RequestUri.Query)
                .ToDictionary(p => p.Key, p => p.Value.Select(v => v ?? "").ToArray(), StringComparer.Ordinal),
            RequestHeaders = HeadersOf(request.Headers.NonValidated, request.Content?.Headers.NonValidated),
            RequestType = request.Content?.Headers.NonValidated.TryGetValues("Content-Type", out var type) is true ? type.ToString()
                : null,
            RequestBody = sent,
            Status = (int)response.StatusCode,
            AnswerHeaders = HeadersOf(response.Headers.NonValidated, response.Content.Headers.NonValidated),
            AnswerType = response.Content.Headers.ContentType?.MediaType,
            AnswerBody = await response.Content.ReadAsByteArrayAsync(cancellationToken),
        };
        var violations = (contract ?? Contract.Current).Violations(exchange).ToArray();
        if (violations.Length > 0)
        {
            response.Dispose();
            Assert.Fail(
                $"{exchange.Method} {request.RequestUri.PathAndQuery} is not as docs/openapi.json has it:\n  "
                    + $"{string.Join("\n  ", violations)}");
        }
        return response;
    }

    private static Dictionary<string, string> HeadersOf(
        System.Net.Http.Headers.HttpHeadersNonValidated headers, System.Net.Http.Headers.HttpHeadersNonValidated? content) =>
        headers.Concat(content ?? default(IEnumerable<KeyValuePair<string, System.Net.Http.Headers.HeaderStringValues>>) ?? [])
            .ToDictionary(h => h.Key, h => h.Value.ToString(), StringComparer.OrdinalIgnoreCase);
}
