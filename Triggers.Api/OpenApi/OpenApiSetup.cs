using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Mvc.ApiExplorer;
using Microsoft.AspNetCore.OpenApi;
using Microsoft.OpenApi;
using Scalar.AspNetCore;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.Idempotency;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;

namespace Triggers.Api.OpenApi;

/// <summary>
/// The contract at <c>/openapi/v1.json</c>, made of the <see cref="Operation"/> of each endpoint, and Scalar showing it at
/// <c>/scalar</c>, from what is in this process and nowhere else.
/// </summary>
internal static class OpenApiSetup
{
    private const string HeaderKey = "ApiKeyHeader";
    private const string BearerKey = "ApiKeyBearer";

    /// <summary>Adds the document.</summary>
    public static void AddContract(this IServiceCollection services)
    {
        services.AddSingleton<ContractDocument>();
        services.AddOpenApi(ContractDocument.Name, Configure);
    }

    private static void Configure(OpenApiOptions options)
    {
        options.OpenApiVersion = OpenApiSpecVersion.OpenApi3_1;
        options.AddSchemaTransformer((schema, context, _) =>
        {
            OpenApiSchemas.Correct(schema, context.JsonTypeInfo);
            if (context.JsonPropertyInfo?.AttributeProvider is { } member)
                OpenApiSchemas.Limit(schema, member);
            return Task.CompletedTask;
        });
        options.AddOperationTransformer(DescribeAsync);
        options.AddDocumentTransformer((document, _, _) =>
        {
            Finish(document);
            return Task.CompletedTask;
        });
    }

    /// <summary>Maps the document and Scalar.</summary>
    public static void MapContract(this IEndpointRouteBuilder app)
    {
        app.MapGet(ContractDocument.Path, ContractDocument.GetAsync).AllowAnonymous().ExcludeFromDescription();
        app.MapScalarApiReference(options => options
            .WithTitle("Triggers")
            .DisableDefaultFonts()
            .DisableTelemetry()
            .DisableAgent()).AllowAnonymous();
    }

    private static void Finish(OpenApiDocument document)
    {
        document.Servers = [];
        document.Info = new OpenApiInfo
        {
            Title = "Triggers",
            Version = "1.0.0",
            Description =
                "Takes events in, keeps them, and gets each one to everybody who subscribed to it: pushed as a signed webhook, or "
                + "pulled from an inbox. Errors are problem details (RFC 9457) whose `code` is stable; docs/errors.md lists them.",
        };
        // The framework lists the classes that map endpoints; what operations are grouped by is what readers see.
        document.Tags = document.Paths.Values.SelectMany(path => (path.Operations ?? []).Values)
            .SelectMany(operation => operation.Tags ?? new HashSet<OpenApiTagReference>())
            .Select(tag => tag.Reference.Id!).Distinct().Select(name => new OpenApiTag { Name = name }).ToHashSet();
        document.Components ??= new OpenApiComponents();
        document.Components.Headers = AllHeaders();
        document.Components.SecuritySchemes = new Dictionary<string, IOpenApiSecurityScheme>
        {
            [HeaderKey] =
                new OpenApiSecurityScheme { Type = SecuritySchemeType.ApiKey, In = ParameterLocation.Header, Name = "X-API-Key" },
            [BearerKey] = new OpenApiSecurityScheme { Type = SecuritySchemeType.Http, Scheme = "bearer" },
        };
    }

    private static async Task DescribeAsync(
        OpenApiOperation operation, OpenApiOperationTransformerContext context, CancellationToken cancellationToken)
    {
        var metadata = context.Description.ActionDescriptor.EndpointMetadata;
        if (metadata.OfType<Operation>().FirstOrDefault() is not { } about)
            throw new InvalidOperationException($"{context.Description.RelativePath} does not say what it is.");

        var document = context.Document!;
        var scope = metadata.OfType<RequiredScope>().FirstOrDefault()?.Scope;
        operation.OperationId = about.Id;
        operation.Summary = about.Summary;
        operation.Description = scope is null ? about.Description : $"{about.Description}\n\nNeeds a key with the scope `{scope}`.";
        operation.Tags = new HashSet<OpenApiTagReference> { new(about.Group, document) };
        operation.Parameters = [.. Parameters(about, context.Description.RelativePath!)];
        operation.RequestBody = about.Body is null ? null : new OpenApiRequestBody
        {
            Required = !about.BodyIsOptional,
            Content = await ContentAsync(about.Body, BodyTypes(about, context.Description.HttpMethod), context, cancellationToken),
        };
        foreach (var (mediaType, payload) in about.AlsoTakes)
        {
            operation.RequestBody!.Content![mediaType] = payload is null ? new OpenApiMediaType { Schema = new OpenApiSchema() }
                : (await ContentAsync(payload, [mediaType], context, cancellationToken))[mediaType];
        }
        operation.Security = scope is null ? [] :
        [
            new OpenApiSecurityRequirement { [new OpenApiSecuritySchemeReference(HeaderKey, document)] = [] },
            new OpenApiSecurityRequirement { [new OpenApiSecuritySchemeReference(BearerKey, document)] = [] },
        ];

        operation.Responses = [];
        // What the handler's typed result says of itself; everything else it may answer is an error, and thrown.
        var success = context.Description.SupportedResponseTypes.First(type => type.StatusCode < 300);
        operation.Responses[success.StatusCode.ToString()] = new OpenApiResponse
        {
            Description = success.StatusCode switch { 201 => "Made.", 202 => "Accepted.", 204 => "Done.", _ => "OK." },
            Content = about.AnswerExample is null ? null
                : await ContentAsync(
                    new Payload(about.Answers is [var first, ..] ? first : success.Type!, about.AnswerExample), BodyTypes(about), context,
                    cancellationToken),
            Headers = Headers(about, success.StatusCode, document, scope is not null),
        };
        foreach (var (mediaType, payload) in about.AlsoAnswers)
        {
            operation.Responses[success.StatusCode.ToString()].Content![mediaType] =
                (await ContentAsync(payload, [mediaType], context, cancellationToken))[mediaType];
        }
        if (about.Answers.Count > 0)
        {
            var any = new List<IOpenApiSchema>();
            foreach (var type in about.Answers)
                any.Add(await SchemaAsync(type, context, cancellationToken));
            operation.Responses[success.StatusCode.ToString()].Content![Body.MediaType].Schema = new OpenApiSchema { AnyOf = any };
        }
        foreach (var errors in Errors(about, scope is not null, context.Description).GroupBy(e => e.Status).OrderBy(g => g.Key))
        {
            operation.Responses[errors.Key.ToString()] = new OpenApiResponse
            {
                Description = string.Join("\n", errors.Select(e => $"- `{e.Code}`: {e.Title}.")),
                Headers = Headers(document, [Correlation.Header, .. ErrorHeaders([.. errors])]),
                // Without an example: the schema has one, and this comes a dozen times in every operation.
                Content = new Dictionary<string, OpenApiMediaType>
                {
                    ["application/problem+json"] = new() { Schema = await SchemaAsync(typeof(Problem), context, cancellationToken) },
                },
            };
        }
    }

    // Both for PATCH: a merge patch (RFC 7396) has a media type of its own, and many clients send plain JSON.
    private static string[] BodyTypes(Operation about, string? method = null) =>
        about.SpeaksYaml ? [Body.MediaType, Yaml.MediaType]
            : HttpMethods.IsPatch(method ?? "") ? [Body.PatchMediaType, Body.MediaType] : [Body.MediaType];

    private static IEnumerable<string> ErrorHeaders(ErrorCode[] errors)
    {
        if (errors.Contains(ErrorCodes.Unauthenticated))
            yield return "WWW-Authenticate";
        if (errors[0].Status is 429 or 503)
            yield return "Retry-After";
    }

    private static IEnumerable<ErrorCode> Errors(Operation about, bool needsKey, ApiDescription description)
    {
        IEnumerable<ErrorCode> errors = [.. about.Errors, ErrorCodes.InternalError];
        if (needsKey)
            errors = errors.Concat([ErrorCodes.InvalidRequest, ErrorCodes.Unauthenticated,
                ErrorCodes.Forbidden, ErrorCodes.RateLimited, ErrorCodes.StorageUnavailable]);
        if (about.Query.Contains(ListParameters.Order))
            errors = errors.Append(ErrorCodes.EventNotYetVisible);
        if (about.Body is not null)
        {
            errors = errors.Concat(
            [
                ErrorCodes.MalformedJson, ErrorCodes.RequestTimeout, ErrorCodes.PayloadTooLarge, ErrorCodes.UnsupportedMediaType,
                ErrorCodes.TooManyBytes, ErrorCodes.Overloaded,
            ]);
        }
        if (!HttpMethods.IsGet(description.HttpMethod!) && !about.Headers.Contains(IdempotencyKey.Parameter))
            errors = errors.Append(ErrorCodes.IdempotencyNotSupported);
        if (description.RelativePath!.Contains('{'))
            errors = errors.Append(ErrorCodes.NotFound);
        return errors.Distinct().OrderBy(e => ErrorCodes.All.ToList().IndexOf(e));
    }

    private static IEnumerable<OpenApiParameter> Parameters(Operation about, string path)
    {
        if (path.Contains("{id}"))
        {
            yield return new OpenApiParameter
            {
                Name = "id",
                In = ParameterLocation.Path,
                Required = true,
                Description = "The id, as in an answer of this service.",
                Schema = new OpenApiSchema { Type = JsonSchemaType.String },
            };
        }
        foreach (var parameter in about.Query)
            yield return Describe(parameter, ParameterLocation.Query);
        foreach (var parameter in about.Headers)
            yield return Describe(parameter, ParameterLocation.Header);
        yield return Describe(
            Parameter.AnyText(Correlation.Header,
                $"Ties together everything this request causes: at most {Correlation.MaxLength} letters, digits and `._:-`; anything "
                    + "else is replaced. Made when left out.",
                "checkout-77"),
            ParameterLocation.Header);
    }

    private static OpenApiParameter Describe(Parameter parameter, ParameterLocation place) => new()
    {
        Name = parameter.Name,
        In = place,
        Description = parameter.Description,
        Schema = OpenApiSchemas.Of(parameter),
        Example = parameter.Type == ParameterType.Number ? JsonNode.Parse(parameter.Example) : JsonValue.Create(parameter.Example),
    };

    private static Dictionary<string, IOpenApiHeader> Headers(Operation about, int status, OpenApiDocument document, bool needsKey)
    {
        List<string> names = [Correlation.Header];
        if (needsKey)
            names.AddRange([RateLimits.PolicyHeader, RateLimits.Header]);
        if (status is 201 || about.AnswersLocation)
            names.Add("Location");
        if (about.IsList)
            names.Add("Link");
        if (about.Headers.Contains(IdempotencyKey.Parameter))
            names.Add("Idempotency-Replayed");
        return Headers(document, names);
    }

    private static Dictionary<string, IOpenApiHeader> Headers(OpenApiDocument document, IEnumerable<string> names) =>
        names.ToDictionary(name => name, name => (IOpenApiHeader)new OpenApiHeaderReference(name, document));

    // Once for all answers.
    private static Dictionary<string, IOpenApiHeader> AllHeaders()
    {
        static IOpenApiHeader Header(string description, bool required, OpenApiSchema? schema = null) =>
            new OpenApiHeader
            {
                Description = description,
                Required = required,
                Schema = schema
                ?? new OpenApiSchema { Type = JsonSchemaType.String }
            };

        return new Dictionary<string, IOpenApiHeader>
        {
            [Correlation.Header] = Header("The request's correlation id.", true),
            [RateLimits.PolicyHeader] = Header(
                "The limits that hold: `q` at once, refilled over `w` seconds. `default` are the requests of the tenant, `key` those "
                    + "of the key, `events` and `bytes` "
                + "what is published, `events-per-day` the quota.", true),
            [RateLimits.Header] = Header("What is left of them: `r` now, all of it in `t` seconds.", true),
            ["Location"] = Header("Where it is, relative.", true),
            ["Link"] = Header("The next page, relative, as `rel=\"next\"`.", false),
            ["Idempotency-Replayed"] = Header("`true` when this repeats an earlier answer.", false),
            ["Retry-After"] = Header(
                "When to come again, in seconds.", true, new OpenApiSchema { Type = JsonSchemaType.Integer, Minimum = "1" }),
            ["WWW-Authenticate"] = Header("How to authenticate.", true),
        };
    }

    private static async Task<Dictionary<string, OpenApiMediaType>> ContentAsync(
        Payload payload, string[] mediaTypes, OpenApiOperationTransformerContext context, CancellationToken cancellationToken)
    {
        var schema = await SchemaAsync(payload.Type, context, cancellationToken);
        return mediaTypes.ToDictionary(
            type => type, _ => new OpenApiMediaType { Schema = schema, Example = JsonNode.Parse(payload.Example) });
    }

    private static async Task<OpenApiSchemaReference> SchemaAsync(
        Type type, OpenApiOperationTransformerContext context, CancellationToken cancellationToken)
    {
        var name = SchemaName(type);
        var document = context.Document!;
        if (document.Components?.Schemas?.ContainsKey(name) is not true)
            document.AddComponent(name, await context.GetOrCreateSchemaAsync(type, null, cancellationToken));
        return new OpenApiSchemaReference(name, document);
    }

    private static string SchemaName(Type type) =>
        type.IsGenericType ? $"{type.Name[..type.Name.IndexOf('`')]}Of{string.Concat(type.GetGenericArguments().Select(SchemaName))}"
            : type.Name;
}
