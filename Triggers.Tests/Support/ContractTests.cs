using System.Net;
using System.Text;
using System.Text.Json.Nodes;

namespace Triggers.Tests.Support;

/// <summary>
/// What holds every answer of the tests against the contract finds each kind of violation, and nothing where there is none.
/// </summary>
public sealed class ContractTests
{
    private static readonly Contract s_contract = new(JsonNode.Parse(
        """
        {
          "paths": {
            "/things": {
              "get": {
                "operationId": "listThings",
                "parameters": [{"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 10}}],
                "responses": {
                  "200": {
                    "headers": {"X-Correlation-ID": {"$ref": "#/components/headers/Id"}, "Link": {"schema": {"type": "string"}}},
                    "content": {"application/json": {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}}}}
                  },
                  "400": {"description": "- `invalid_request`: no.", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
                }
              },
              "post": {
                "operationId": "makeThing",
                "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewThing"}}}},
                "responses": {
                  "201": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
                  "400": {"description": "- `invalid_request`: no.", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
                }
              }
            },
            "/things/{id}": {"delete": {"operationId": "dropThing", "responses": {"204": {}}}}
          },
          "components": {
            "headers": {"Id": {"required": true, "schema": {"type": "string"}}},
            "schemas": {
              "Thing": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "at": {"type": ["null", "string"], "format": "date-time"}}},
              "NewThing": {"type": "object", "required": ["name"], "additionalProperties": false, "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 5}}},
              "Problem": {"type": "object", "required": ["code"], "properties": {
                "code": {"type": "string"},
                "errors": {"type": "array", "items": {"type": "object", "required": ["pointer"], "properties": {"pointer": {"type": "string"}}}}}}
            }
          }
        }
        """)!);

    private static readonly Exchange s_list = new()
    {
        Method = "GET",
        Path = "/things",
        Status = 200,
        AnswerHeaders = new Dictionary<string, string> { ["X-Correlation-ID"] = "1" },
        AnswerType = "application/json",
        AnswerBody = """[{"id":"a","at":"2026-01-31T09:30:00Z"},{"id":"b","at":null},{"id":"c"}]"""u8.ToArray(),
    };

    private static readonly Exchange s_make = new()
    {
        Method = "POST",
        Path = "/things",
        RequestType = "application/json; charset=utf-8",
        RequestBody = """{"name":"a"}"""u8.ToArray(),
        Status = 201,
        AnswerType = "application/json",
        AnswerBody = """{"id":"a"}"""u8.ToArray(),
    };

    private static readonly Exchange s_drop = new() { Method = "DELETE", Path = "/things/x%2Fy", Status = 204 };

    private static readonly Exchange s_nowhere = new()
    {
        Method = "GET",
        Path = "/nowhere",
        Status = 404,
        AnswerType = "application/problem+json",
        AnswerBody = """{"code":"not_found"}"""u8.ToArray(),
    };

    private static readonly Exchange s_wrongMethod = s_nowhere with
    {
        Path = "/things",
        Method = "PUT",
        Status = 405,
        AnswerHeaders = new Dictionary<string, string> { ["Allow"] = "GET, POST" },
        AnswerBody = """{"code":"method_not_allowed"}"""u8.ToArray(),
    };

    [Fact]
    public void What_is_as_documented_has_no_violations()
    {
        Exchange[] right =
        [
            s_list, s_make, s_drop, s_nowhere, s_wrongMethod,
            s_list with { Query = Query("limit", "10") },
            s_list with { Method = "HEAD", AnswerBody = [] },
            Refused(s_make with { RequestBody = """{"name":"too long"}"""u8.ToArray() }, "/name"),
            Refused(s_list with { Query = Query("limit", "11") }, "?limit"),
            s_nowhere with { Path = "/openapi/v1.json", Status = 200 },
            new Exchange
            {
                Method = "OPTIONS",
                Path = "/things",
                Status = 204,
                RequestHeaders = new Dictionary<string, string> { ["Access-Control-Request-Method"] = "GET" },
            },
        ];

        Assert.All(right, exchange => Assert.Empty(s_contract.Violations(exchange)));
    }

    [Fact]
    public void A_status_that_is_not_documented_is_found() => Finds("status 418 is not documented", s_list with { Status = 418 });

    [Fact]
    public void A_media_type_that_is_not_documented_is_found() =>
        Finds("media type text/plain", s_list with { AnswerType = "text/plain" });

    [Fact]
    public void A_header_that_is_missing_is_found() =>
        Finds("X-Correlation-ID is missing", s_list with { AnswerHeaders = new Dictionary<string, string>() });

    [Theory]
    [InlineData("""[{"id":7}]""", "/0/id")]
    [InlineData("""[{}]""", "required")]
    [InlineData("""[{"id":"a","more":1}]""", "/0/more")]
    [InlineData("""[{"id":"a","at":"yesterday"}]""", "date-time")]
    [InlineData("""{"id":"a"}""", "array")]
    [InlineData("""[{"id":"a"}""", "not JSON")]
    [InlineData("", "not JSON")]
    public void A_body_that_is_not_the_schemas_is_found(string body, string named) =>
        Finds(named, s_list with { AnswerBody = Encoding.UTF8.GetBytes(body) });

    [Fact]
    public void A_body_where_none_is_documented_is_found()
    {
        Finds("documented without a body", s_drop with { AnswerBody = "{}"u8.ToArray(), AnswerType = "application/json" });
        Finds("HEAD has a body", s_list with { Method = "HEAD" });
    }

    [Fact]
    public void An_error_that_is_not_documented_is_found() =>
        Finds("the code teapot is not documented", Refused(
            s_list with { Query = Query("limit", "11") }, "?limit") with
        { AnswerBody = """{"code":"teapot"}"""u8.ToArray() });

    [Fact]
    public void A_path_or_method_that_is_not_documented_is_found()
    {
        Finds("no operation of the document", s_nowhere with { Status = 200 });
        Finds("no operation of the document", s_wrongMethod with { Status = 200, AnswerType = "application/json" });
        Finds("the header Allow is missing", s_wrongMethod with { AnswerHeaders = new Dictionary<string, string>() });
        Finds("the code is oops", s_nowhere with { AnswerBody = """{"code":"oops"}"""u8.ToArray() });
        Finds("required", s_nowhere with { AnswerBody = "{}"u8.ToArray() });
    }

    [Theory]
    [InlineData("""{"name":""}""")]
    [InlineData("""{"name":"123456"}""")]
    [InlineData("""{"name":"a","more":1}""")]
    [InlineData("""{"name":null}""")]
    [InlineData("{}")]
    [InlineData("{")]
    public void A_body_that_is_accepted_and_not_allowed_is_found(string body) =>
        Finds("was accepted, and the document does not allow it", s_make with { RequestBody = Encoding.UTF8.GetBytes(body) });

    [Fact]
    public void A_request_that_is_accepted_and_not_allowed_is_found()
    {
        const string found = "was accepted, and the document does not allow it";
        Finds(found, s_list with { Query = Query("limit", "0") });
        Finds(found, s_list with { Query = Query("limit", "ten") });
        Finds(found, s_list with { Query = Query("limit", "1", "2") });
        Finds(found, s_list with { Query = Query("unknown", "1") });
        Finds(found, s_make with { RequestType = "text/plain" });
        Finds(found, s_make with { RequestType = "application/json; charset=utf-16" });
        Finds(found, s_make with { RequestType = null, RequestBody = [] });
        Finds(found, s_make with { RequestHeaders = new Dictionary<string, string> { ["Idempotency-Key"] = "1" } });
    }

    [Fact]
    public void A_request_that_is_refused_and_allowed_is_found()
    {
        const string found = "is allowed by the document, and was refused";
        Finds(found, Refused(s_make, "/name"));
        Finds(found, Refused(s_list with { Query = Query("limit", "5") }, "?limit"));
    }

    [Fact]
    public async Task A_violation_fails_the_test_that_sent_the_request()
    {
        using var answering = new Answering();
        using var client = new HttpClient(new ContractHandler(answering, s_contract)) { BaseAddress = new Uri("http://triggers.example") };

        var right = await client.GetStringAsync("/things", TestContext.Current.CancellationToken);
        answering.Body = """[{"id":7}]""";
        var failure = await Assert.ThrowsAnyAsync<Xunit.Sdk.XunitException>(
            () => client.GetAsync("/things?limit=3", TestContext.Current.CancellationToken));

        Assert.Equal("[]", right);
        Assert.Contains("GET /things?limit=3", failure.Message);
        Assert.Contains("/0/id", failure.Message);
    }

    private static void Finds(string named, Exchange exchange) =>
        Assert.Contains(s_contract.Violations(exchange), violation => violation.Contains(named, StringComparison.OrdinalIgnoreCase));

    private static Exchange Refused(Exchange exchange, string pointer) => exchange with
    {
        Status = 400,
        AnswerType = "application/problem+json",
        AnswerBody = Encoding.UTF8.GetBytes($$"""{"code":"invalid_request","errors":[{"pointer":"{{pointer}}"}]}"""),
    };

    private static Dictionary<string, string[]> Query(string name, params string[] values) => new() { [name] = values };

    private sealed class Answering : HttpMessageHandler
    {
        public string Body { get; set; } = "[]";

        protected override Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            var response =
                new HttpResponseMessage(HttpStatusCode.OK) { Content = new StringContent(Body, Encoding.UTF8, "application/json") };
            response.Headers.Add("X-Correlation-ID", "1");
            return Task.FromResult(response);
        }
    }
}
