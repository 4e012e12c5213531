using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using System.Text.Unicode;
using Json.Schema;
using Triggers.Api.Errors;
using Triggers.Api.Http;

namespace Triggers.Tests.Support;

/// <summary>
/// <c>docs/openapi.json</c>, and what is against it. Every client of the tests that talks to the API asks here, for each request and its
/// answer (see <see cref="ContractHandler"/>).
/// </summary>
/// <remarks>
/// Of an answer: its status and code are documented for the operation, its media type is, its body has all that the schema has and nothing
/// else, and the headers that are promised are there. Of a request: what is accepted is what the document allows, and what the document
/// allows is not refused as invalid, but for the rules in <see cref="s_beyondSchema"/>.
/// </remarks>
internal sealed partial class Contract
{
    private const string Problem = "application/problem+json";
    private const string Requests = "urn:triggers:requests";
    private const string Answers = "urn:triggers:answers";

    // Paths that the document leaves out: they are for orchestrators, and for people who read the reference.
    private static readonly string[] s_undocumented = ["/openapi/", "/scalar", "/health/live", "/health/ready", "/metrics"];

    private static readonly Lazy<Contract> s_current =
        new(() => new Contract(JsonNode.Parse(File.ReadAllText(Repository.File("docs", "openapi.json")))!));

    // What no schema can say: that a name is known, that a time is to come, which of two members goes with which. A pattern of pointers.
    private static readonly Regex s_beyondSchema = BeyondSchema();

    private static readonly EvaluationOptions s_quick = new() { OutputFormat = OutputFormat.Flag, RequireFormatValidation = true };
    private static readonly EvaluationOptions s_thorough = new() { OutputFormat = OutputFormat.List, RequireFormatValidation = true };

    private static readonly JsonDocumentOptions s_strict = new() { AllowDuplicateProperties = false };

    // A batch is taken though one of its events goes too deep, and so is data that has a member twice.
    private static readonly JsonDocumentOptions s_lenient = new() { MaxDepth = 4_000 };

    private readonly BuildOptions _build = new() { SchemaRegistry = new SchemaRegistry() };
    private readonly List<Operation> _operations = [];
    private readonly JsonSchema _problem;

    public Contract(JsonNode document)
    {
        Register(document, Requests, strict: false);
        Register(document, Answers, strict: true);
        _problem = Schema(new JsonObject { ["$ref"] = "#/components/schemas/Problem" }, Answers);
        foreach (var (path, item) in document["paths"]!.AsObject())
        {
            foreach (var (method, operation) in item!.AsObject())
                _operations.Add(Read(document, path, method, operation!));
        }
    }

    /// <summary>The committed one.</summary>
    public static Contract Current => s_current.Value;

    /// <summary>What is wrong with an exchange; empty when nothing is.</summary>
    public IEnumerable<string> Violations(Exchange exchange)
    {
        if (s_undocumented.Any(path => exchange.Path.StartsWith(path, StringComparison.Ordinal)))
            return [];
        var method = exchange.Method == "HEAD" ? "GET" : exchange.Method;
        var atPath = _operations.Where(o => o.Path.IsMatch(exchange.Path)).ToArray();
        if (atPath.FirstOrDefault(o => o.Method == method) is { } operation)
            return AnswerViolations(operation, exchange).Concat(RequestViolations(operation, exchange));
        return exchange.Method == "OPTIONS" && exchange.RequestHeaders.ContainsKey("Access-Control-Request-Method") ? []
            : atPath.Length > 0 ? RefusalViolations(exchange, 405, "method_not_allowed", "Allow")
            : RefusalViolations(exchange, 404, "not_found");
    }

    private static IEnumerable<string> AnswerViolations(Operation operation, Exchange exchange)
    {
        if (!operation.Answers.TryGetValue(exchange.Status, out var answer))
        {
            yield return $"status {exchange.Status} is not documented";
            yield break;
        }
        foreach (var header in answer.RequiredHeaders.Where(name => !exchange.AnswerHeaders.ContainsKey(name)))
            yield return $"the header {header} is missing";
        if (exchange.Method == "HEAD")
        {
            if (exchange.AnswerBody.Length > 0)
                yield return "an answer to HEAD has a body";
            yield break;
        }
        if (answer.Schemas.Count == 0 || exchange.Status == 304)
        {
            if (exchange.AnswerBody.Length > 0)
                yield return $"status {exchange.Status} is documented without a body";
            yield break;
        }
        if (!answer.Schemas.TryGetValue(exchange.AnswerType ?? "", out var schema))
        {
            yield return $"the media type {exchange.AnswerType ?? "(none)"} is not documented, {string.Join(", ", answer.Schemas.Keys)} is";
            yield break;
        }
        if (!TryParse(JsonOf(exchange.AnswerBody, exchange.AnswerType), out var body, out var mistake, lenient: true))
        {
            yield return $"the body is not JSON: {mistake}";
            yield break;
        }
        foreach (var violation in Evaluate(schema, body))
            yield return $"the body: {violation}";
        if (exchange.AnswerType == Problem && CodeOf(body) is var code && !answer.Codes.Contains(code))
            yield return $"the code {code} is not documented for {exchange.Status}";
    }

    private IEnumerable<string> RefusalViolations(Exchange exchange, int status, string code, params string[] headers)
    {
        if (exchange.Status != status || exchange.AnswerType != Problem)
        {
            yield return $"is no operation of the document, and was answered {exchange.Status} {exchange.AnswerType}";
            yield break;
        }
        foreach (var header in headers.Where(name => !exchange.AnswerHeaders.ContainsKey(name)))
            yield return $"the header {header} is missing";
        if (exchange.Method == "HEAD")
            yield break;
        if (!TryParse(exchange.AnswerBody, out var body, out var mistake, lenient: true))
        {
            yield return $"the body is not JSON: {mistake}";
            yield break;
        }
        foreach (var violation in Evaluate(_problem, body))
            yield return $"the body: {violation}";
        if (CodeOf(body) != code)
            yield return $"the code is {CodeOf(body)} and not {code}";
    }

    /// <summary>
    /// The document is what the code enforces: no less (what is accepted is allowed), and no more (what is allowed is not refused).
    /// </summary>
    private static IEnumerable<string> RequestViolations(Operation operation, Exchange exchange)
    {
        var accepted = exchange.Status is >= 200 and < 300;
        var refused = exchange.Status is 400 or 415;
        if (!accepted && !refused)
            yield break;
        // An event that has mistakes is refused alone, and the batch is accepted.
        var mistakes = RequestMistakes(operation, exchange)
            .Where(m => !(accepted && operation.Id == "publishEvents" && m.Contains("/events/"))).ToArray();
        if (accepted)
        {
            foreach (var mistake in mistakes)
                yield return $"was accepted, and the document does not allow it: {mistake}";
        }
        else if (mistakes.Length == 0 && TryParse(exchange.AnswerBody, out var problem, out _))
        {
            if (CodeOf(problem) is "malformed_json" or "malformed_yaml" or "unsupported_media_type")
                yield return $"is allowed by the document, and was refused: {problem}";
            foreach (var pointer in PointersOf(problem).Where(pointer => !s_beyondSchema.IsMatch($"{operation.Id} {pointer}")))
                yield return $"is allowed by the document, and was refused at \"{pointer}\": {problem}";
        }
    }

    private static IEnumerable<string> RequestMistakes(Operation operation, Exchange exchange)
    {
        foreach (var (name, values) in exchange.Query)
        {
            var parameter = operation.Parameters.FirstOrDefault(p => p.In == "query" && p.Name == name);
            if (parameter is null)
                yield return $"there is no query parameter \"{name}\"";
            else if (values.Length > 1)
                yield return $"the query parameter \"{name}\" comes {values.Length} times";
            else
            {
                foreach (var mistake in Evaluate(parameter.Schema, parameter.ValueOf(values[0])))
                    yield return $"?{name}{mistake}";
            }
        }
        foreach (var parameter in operation.Parameters.Where(p => p.In == "header"))
        {
            if (!exchange.RequestHeaders.TryGetValue(parameter.Name, out var value))
                continue;
            foreach (var mistake in Evaluate(parameter.Schema, parameter.ValueOf(value)))
                yield return $"{parameter.Name}{mistake}";
        }
        // A write that nobody remembers refuses the key, and so does not name it.
        if (exchange.Method is not ("GET" or "HEAD") && exchange.RequestHeaders.ContainsKey("Idempotency-Key")
            && !operation.Parameters.Any(p => p.Name == "Idempotency-Key"))
            yield return "the header Idempotency-Key is not one of this operation's";

        if (operation.Bodies.Count == 0)
            yield break;
        if (exchange.RequestBody.Length == 0 && exchange.RequestType is null)
        {
            if (operation.BodyIsRequired)
                yield return "a body is required";
            yield break;
        }
        if (exchange.RequestHeaders.ContainsKey("Content-Encoding"))
            yield return "the body is encoded";
        var type = exchange.RequestType?.Split(';')[0].Trim().ToLowerInvariant() ?? "";
        if (!operation.Bodies.TryGetValue(type, out var schema))
            yield return $"the media type \"{type}\" is not documented";
        else if (IsInAnotherCharset(exchange.RequestType!))
            yield return $"{exchange.RequestType} is not UTF-8";
        else if (!TryParse(JsonOf(exchange.RequestBody, type), out var body, out var problem, lenient: exchange.Status < 300))
            yield return $"the body is not JSON: {problem}";
        else
        {
            foreach (var mistake in Evaluate(schema, body))
                yield return $"the body: {mistake}";
        }
    }

    private static bool IsInAnotherCharset(string type) => OtherCharset().IsMatch(type);

    private Operation Read(JsonNode document, string path, string method, JsonNode operation)
    {
        var content = operation["requestBody"]?["content"]?.AsObject();
        return new Operation(
            operation["operationId"]!.GetValue<string>(),
            method.ToUpperInvariant(),
            new Regex("^" + Parameters().Replace(Regex.Escape(path).Replace("\\{", "{"), "[^/]*") + "$"),
            [.. (operation["parameters"]?.AsArray() ?? []).Select(p => new Parameter(
                p!["name"]!.GetValue<string>(), p["in"]!.GetValue<string>(), Schema(p["schema"]!, Requests),
                IsNumber: p["schema"]!["type"]?.ToString() is "integer" or "number"))],
            content?.ToDictionary(type => type.Key, type => Schema(type.Value!["schema"]!, Requests)) ?? [],
            operation["requestBody"]?["required"]?.GetValue<bool>() ?? false,
            operation["responses"]!.AsObject().ToDictionary(r => int.Parse(r.Key), r => Read(document, r.Value!)));
    }

    private DocumentedAnswer Read(JsonNode document, JsonNode answer)
    {
        var content = answer["content"]?.AsObject();
        var headers = (answer["headers"]?.AsObject() ?? []).Select(h => (h.Key, Header: Resolve(document, h.Value!)));
        return new DocumentedAnswer(
            content?.ToDictionary(type => type.Key, type => Schema(type.Value!["schema"]!, Answers)) ?? [],
            [.. headers.Where(h => h.Header["required"]?.GetValue<bool>() is true).Select(h => h.Key)],
            [.. Codes().Matches(answer["description"]?.GetValue<string>() ?? "").Select(m => m.Groups[1].Value)]);
    }

    private static JsonNode Resolve(JsonNode document, JsonNode node)
    {
        if (node["$ref"]?.GetValue<string>() is not { } reference)
            return node;
        return reference.TrimStart('#', '/').Split('/').Aggregate(document, (at, name) => at[name]!);
    }

    private void Register(JsonNode document, string id, bool strict)
    {
        var schemas = document["components"]?["schemas"]?.DeepClone() ?? new JsonObject();
        var all = new JsonObject
        {
            ["$id"] = id,
            ["$schema"] = "https://json-schema.org/draft/2020-12/schema",
            ["$defs"] = Rewrite(schemas, "", strict)
        };
        JsonSchema.FromText(all.ToJsonString(), _build);
    }

    private JsonSchema Schema(JsonNode schema, string id) =>
        JsonSchema.FromText(Rewrite(schema.DeepClone(), id, strict: id == Answers)!.ToJsonString(), _build);

    // Components become definitions; and where asked for, an object has no members but those it names.
    private static JsonNode Rewrite(JsonNode node, string id, bool strict)
    {
        foreach (var child in node switch
        {
            JsonObject members =>
                // A member of this name is a schema, and an example is none.
                members.Where(m => m.Key is not ("enum" or "example" or "examples" or "default")
                    || m.Value is JsonObject { Count: 1 } only && only.ContainsKey("$ref")).Select(m => m.Value).ToArray(),
            JsonArray items => [.. items],
            _ => [],
        })
        {
            if (child is JsonObject or JsonArray)
                Rewrite(child, id, strict);
        }
        if (node is JsonObject schema)
        {
            if (schema["$ref"] is JsonValue reference)
                schema["$ref"] = reference.GetValue<string>().Replace("#/components/schemas/", id + "#/$defs/");
            if (strict && schema["properties"] is JsonObject && !schema.ContainsKey("additionalProperties")
                && !schema.ContainsKey("allOf"))
                schema["additionalProperties"] = false;
        }
        return node;
    }

    private static IEnumerable<string> Evaluate(JsonSchema schema, JsonElement value)
    {
        try
        {
            if (schema.Evaluate(value, s_quick).IsValid)
                return [];
        }
        catch (InvalidOperationException)
        {
            return ["has half of a surrogate pair"];
        }
        var results = schema.Evaluate(value, s_thorough);
        return [.. (results.Details ?? []).Append(results).Where(r => r.Errors is not null)
            .SelectMany(r => r.Errors!.Select(e => $"{r.InstanceLocation}: {e.Value}")).DefaultIfEmpty("is not what the schema says")];
    }

    /// <summary>Reads JSON as everybody understands it (RFC 7493): UTF-8, and no member twice, unless asked for less.</summary>
    private static bool TryParse(ReadOnlyMemory<byte> json, out JsonElement value, out string? mistake, bool lenient = false)
    {
        mistake = null;
        value = default;
        try
        {
            var text = json.Span.StartsWith("\uFEFF"u8) ? json[3..] : json;
            if (!Utf8.IsValid(text.Span))
                mistake = "it is not UTF-8";
            else
                value = JsonDocument.Parse(text, lenient ? s_lenient : s_strict).RootElement;
        }
        catch (JsonException e)
        {
            mistake = e.Message;
        }
        return mistake is null;
    }

    /// <summary>What is YAML as JSON; what can't be read as it is.</summary>
    private static ReadOnlyMemory<byte> JsonOf(ReadOnlyMemory<byte> body, string? type)
    {
        try
        {
            return type == Yaml.MediaType ? Yaml.ToJson(body, s_lenient.MaxDepth) : body;
        }
        catch (ApiException)
        {
            return body;
        }
    }

    private static string CodeOf(JsonElement problem) =>
        problem.ValueKind == JsonValueKind.Object && problem.TryGetProperty("code", out var code) ? code.ToString() : "";

    private static IEnumerable<string> PointersOf(JsonElement problem) =>
        problem.ValueKind == JsonValueKind.Object && problem.TryGetProperty("errors", out var errors)
            && errors.ValueKind == JsonValueKind.Array
            ? errors.EnumerateArray().Select(e => e.GetProperty("pointer").GetString() ?? "")
            : [];

    [GeneratedRegex(@"^- `([a-z_]+)`", RegexOptions.Multiline)]
    private static partial Regex Codes();

    [GeneratedRegex("{[^}]*}")]
    private static partial Regex Parameters();

    [GeneratedRegex("charset\\s*=\\s*(?>\"?)(?!utf-?8\\b)", RegexOptions.IgnoreCase)]
    private static partial Regex OtherCharset();

    [GeneratedRegex(
        """
        ^(
            # a host, a port, a reserved header: see WebhookAddress and WebhookHeaders
            (createSubscription|changeSubscription)\ (/url|/headers/.*) | (createHook|removeHook)\ /targetUrl |
            # what does not go together, and 1 to 30 seconds
            (createSubscription|changeSubscription)\ (/retry|/retry/timeout|/authentication/.*|/clientCertificate(/.*)?) |
            # what goes in no batch, more than Limits:* lets in
            (createSubscription|changeSubscription)\ (/batch(/max)?|/format|/transformation) |
            # what a filter may be, see docs/filters.md; an event or its id, and one there is
            (createSubscription|changeSubscription|testFilter)\ /filter.* | (testFilter|previewTransformation)\ (/eventId)? |
            # more than Limits:* lets in
            (createSubscription|changeSubscription)\ (/eventTypes|/headers) | (createInbox|createHook)\ /eventTypes |
            # what a filter may be; more than Limits:* lets in, or of the inbox that has what nobody subscribes to
            (createInbox|changeInbox)\ /filter.* | changeInbox\ /eventTypes |
            # bits at the end of its base64 that mean nothing
            (createSubscription|rotateSubscriptionSecret)\ /secret |
            # a media type, a URL, and which go with which data; bits at the end of base64 that mean nothing
            publishEvent\ /data(Base64|Url|ContentType|Size|Sha256) |
            # no such thing, or not this caller's
            createApiKey\ /tenantId | (createTenant|changeTenant)\ /usagePlanId | .*\ \?tenantId | getWebhookKeys\ \?subscriptionId | replayEvent\ /subscriptionIds/.* | createReplay\ /subscriptionId |
            # templates that can't be read, names that are not the subscription's, a type, a format beside it
            (createSubscription|changeSubscription|previewTransformation)\ (/transformation.*|/format) |
            # no schema that is taken, an example that does not match it, a mode without one
            (createEventType|changeEventType)\ (/schema.*|/example.*|/mode) |
            # the platform's admin, of another tenant
            createApiKey\ /scopes/[0-9]+ |
            # in an order, and before now
            createReplay\ (/from|/to) |
            # whatever the endpoints of its things refuse
            (planConfiguration|applyConfiguration)\ .* |
            # to come
            (createApiKey|changeApiKey|createSubscription|changeSubscription|createHook)\ /expiresAt |
            # before another, of an event that comes alone
            publishEvent\ /expiresAt |
            # of another list
            .*\ \?cursor
        )$
        """, RegexOptions.IgnorePatternWhitespace)]
    private static partial Regex BeyondSchema();

    private sealed record Operation(
        string Id,
        string Method,
        Regex Path,
        IReadOnlyList<Parameter> Parameters,
        IReadOnlyDictionary<string, JsonSchema> Bodies,
        bool BodyIsRequired,
        IReadOnlyDictionary<int, DocumentedAnswer> Answers);

    private sealed record Parameter(string Name, string In, JsonSchema Schema, bool IsNumber)
    {
        /// <summary>The text as the value that the schema is about.</summary>
        public JsonElement ValueOf(string text) =>
            IsNumber && TryParse(System.Text.Encoding.UTF8.GetBytes(text), out var number, out _) ? number
                : JsonSerializer.SerializeToElement(text);
    }

    private sealed record DocumentedAnswer(
        IReadOnlyDictionary<string, JsonSchema> Schemas, IReadOnlyList<string> RequiredHeaders, IReadOnlyList<string> Codes);
}

/// <summary>A request and its answer.</summary>
internal sealed record Exchange
{
    public required string Method { get; init; }

    /// <summary>Without the query, as it is on the wire.</summary>
    public required string Path { get; init; }

    public IReadOnlyDictionary<string, string[]> Query { get; init; } = new Dictionary<string, string[]>();

    public IReadOnlyDictionary<string, string> RequestHeaders { get; init; } = new Dictionary<string, string>();

    /// <summary>The request's <c>Content-Type</c>.</summary>
    public string? RequestType { get; init; }

    public byte[] RequestBody { get; init; } = [];

    public required int Status { get; init; }

    public IReadOnlyDictionary<string, string> AnswerHeaders { get; init; } = new Dictionary<string, string>();

    /// <summary>The answer's media type, without parameters.</summary>
    public string? AnswerType { get; init; }

    public byte[] AnswerBody { get; init; } = [];
}
