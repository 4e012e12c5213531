using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Ingest;

/// <summary>What data may be beside JSON, and how it is said.</summary>
public sealed class DataFormatsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Theory]
    [InlineData("""{"type":"a","data":1,"dataBase64":"AQID"}""", "")]
    [InlineData("""{"type":"a","data":1,"dataUrl":"https://a.example"}""", "")]
    [InlineData("""{"type":"a","dataBase64":"AQI"}""", "/dataBase64")]
    [InlineData("""{"type":"a","dataBase64":"A Q="}""", "/dataBase64")]
    [InlineData("""{"type":"a","dataBase64":"_-8="}""", "/dataBase64")]
    [InlineData("""{"type":"a","dataBase64":null}""", "/dataBase64")]
    [InlineData("""{"type":"a","dataBase64":"AQID","dataContentType":"application/json"}""", "/dataContentType")]
    [InlineData("""{"type":"a","dataBase64":"AQID","dataContentType":"png"}""", "/dataContentType")]
    [InlineData("""{"type":"a","dataBase64":"AQID","dataSize":3}""", "/dataSize")]
    [InlineData("""{"type":"a","dataUrl":"http://a.example"}""", "/dataUrl")]
    [InlineData("""{"type":"a","dataUrl":"https://user@a.example"}""", "/dataUrl")]
    [InlineData("""{"type":"a","dataUrl":"/relative"}""", "/dataUrl")]
    [InlineData("""{"type":"a","dataUrl":"https://a.example/\"b"}""", "/dataUrl")]
    [InlineData("""{"type":"a","dataUrl":"https://a.example","dataSize":-1}""", "/dataSize")]
    [InlineData("""{"type":"a","dataUrl":"https://a.example","dataSize":1.5}""", "/dataSize")]
    [InlineData("""{"type":"a","dataUrl":"https://a.example","dataSha256":"ab"}""", "/dataSha256")]
    [InlineData("""{"type":"a","data":{},"dataContentType":"text/xml"}""", "/dataContentType")]
    [InlineData("""{"type":"a","data":1,"dataContentType":"a\nb"}""", "/dataContentType")]
    public async Task A_mistake_is_named_with_its_place(string body, string place)
    {
        var tenant = await api.NewTenantAsync();

        Assert.Equal([place], (await tenant.Client.PostAsync("/events", body)).IsProblem(400, "invalid_request").Pointers);
        var batch = (await tenant.Client.PostAsync("/events/batch", $$"""{"events":[{{body}},{"type":"a","dataBase64":"AQID"}]}""")).Is(202);
        Assert.Equal("/events/0" + place, batch.Json["items"]![0]!["errors"]![0]!["pointer"]!.ToString());
        Assert.Equal("accepted", batch.Json["items"]![1]!["status"]!.ToString());
    }

    [Fact]
    public async Task A_type_with_a_schema_is_for_JSON()
    {
        var tenant = await api.NewTenantAsync();
        (await tenant.Client.PostAsync("/event-types", """{"name":"a","schema":true,"mode":"enforce"}""")).Is(201);
        (await tenant.Client.PostAsync("/event-types", """{"name":"b","schema":true,"mode":"warn"}""")).Is(201);

        foreach (var (body, place) in new[]
        {
            ("\"dataBase64\":\"AQID\"", "/dataBase64"), ("\"dataUrl\":\"https://a.example\"", "/dataUrl"),
            ("\"data\":\"b\",\"dataContentType\":\"text/plain\"", "/data"),
        })
        {
            Assert.Equal(
                [place], (await tenant.Client.PostAsync("/events", $$"""{"type":"a",{{body}}}""")).IsProblem(422, "schema_violation").Pointers);
            var warned = (await tenant.Client.PostAsync("/events", $$"""{"type":"b",{{body}}}""")).Is(202);
            Assert.Equal(place, warned.Json["warnings"]![0]!["pointer"]!.ToString());
        }
        (await tenant.Client.PostAsync("/events", """{"type":"a","data":1,"dataContentType":"application/json"}""")).Is(202);
    }
}
