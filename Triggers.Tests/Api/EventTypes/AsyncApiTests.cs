using System.Text.Json.Nodes;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.EventTypes;

/// <summary>The tenant's event types as an AsyncAPI document, held to the specification's own parser.</summary>
public sealed class AsyncApiTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task It_has_a_channel_and_its_messages_for_each_type_and_nothing_of_others()
    {
        var tenant = await TypedTenantAsync();
        var other = await api.NewTenantAsync();

        var document = (await tenant.Client.GetAsync("/asyncapi.json")).Is(200).Json;

        Assert.Equal("3.0.0", document["asyncapi"]!.GetValue<string>());
        Assert.Equal(["order.created", "tree", "user.created"], document["channels"]!.AsObject().Select(c => c.Key));
        var message = document["components"]!["messages"]!["order.created"]!;
        Assert.Equal("orders", message["tags"]![0]!["name"]!.GetValue<string>());
        Assert.Equal("Use order.placed.", message["x-deprecated"]!.GetValue<string>());
        Assert.Equal(7, message["examples"]![0]!["payload"]!["data"]!["orderId"]!.GetValue<int>());
        var data = message["payload"]!["properties"]!["data"]!["$ref"]!.GetValue<string>();
        Assert.Equal("integer", At(document, data)["properties"]!["orderId"]!["type"]!.GetValue<string>());
        // Two messages for each channel, by the formats that have a content type of their own.
        var channel = document["channels"]!["order.created"]!["messages"]!;
        Assert.Equal(
            channel.AsObject().Select(m => "#/channels/order.created/messages/" + m.Key),
            document["operations"]!["order.created"]!["messages"]!.AsArray().Select(m => m!["$ref"]!.GetValue<string>()));
        var cloudEvent = channel["order.created.cloudevents"]!;
        Assert.Equal(
            ("application/json", "application/cloudevents+json"),
            (message["contentType"]!.GetValue<string>(), cloudEvent["contentType"]!.GetValue<string>()));
        Assert.Equal(7, cloudEvent["examples"]![0]!["payload"]!["data"]!["orderId"]!.GetValue<int>());
        Assert.Equal(data, cloudEvent["payload"]!["properties"]!["data"]!["$ref"]!.GetValue<string>());
        Assert.Empty((await other.Client.GetAsync("/asyncapi.json")).Is(200).Json["channels"]!.AsObject());
    }

    [Fact]
    public async Task References_within_a_schema_lead_to_where_it_is_in_the_document()
    {
        var tenant = await TypedTenantAsync();
        (await tenant.Client.PostAsync("/event-types", """{"name":"odd","schema":{"const":{"$ref":"#/x"}}}""")).Is(201);

        var document = (await tenant.Client.GetAsync("/asyncapi.json")).Is(200).Json;

        var properties = document["components"]!["schemas"]!["tree"]!["properties"]!;
        Assert.Same(document["components"]!["schemas"]!["tree"], At(document, properties["child"]!["$ref"]!.GetValue<string>()));
        Assert.Equal("string", At(document, properties["leaf"]!["$ref"]!.GetValue<string>())["type"]!.GetValue<string>());
        // Of a value nothing is a reference.
        Assert.Equal("#/x", document["components"]!["schemas"]!["odd"]!["const"]!["$ref"]!.GetValue<string>());
    }

    [Fact]
    public async Task The_parser_of_the_specification_finds_nothing_wrong_with_it()
    {
        var tenant = await TypedTenantAsync();
        using var node = await NodeProject.CreateAsync("@asyncapi/parser@3.6.3");
        await node.WriteAsync("asyncapi.json", (await tenant.Client.GetAsync("/asyncapi.json")).Is(200).Text);

        var found = await node.RunAsync(
            """
            const { Parser } = require("@asyncapi/parser");
            const text = require("fs").readFileSync("asyncapi.json", "utf8");
            (async () => {
              const errors = async source => (await new Parser().parse(source)).diagnostics.filter(d => d.severity === 0).map(d => d.path.join("/") + ": " + d.message);
              const { document } = await new Parser().parse(text);
              const noticed = (await errors(text.replace('"action":"send"', '"action":"shout"'))).length > 0;
              console.log(JSON.stringify({ errors: await errors(text), messages: document ? document.messages().all().length : 0, noticed }));
            })();
            """);

        Assert.Equal("""{"errors":[],"messages":6,"noticed":true}""", found);
    }

    private async Task<TestTenant> TypedTenantAsync()
    {
        var tenant = await api.NewTenantAsync();
        foreach (var type in new[]
        {
            """
            {"name":"order.created","description":"An order was placed.","group":"orders","mode":"enforce","deprecation":"Use order.placed.",
            "schema":{"$schema":"https://json-schema.org/draft/2020-12/schema","$id":"https://example.com/order","type":"object",
            "properties":{"orderId":{"type":"integer"}},"required":["orderId"]},"example":{"orderId":7}}
            """,
            """
            {"name":"tree","schema":{"properties":{"child":{"$ref":"#"},"leaf":{"$ref":"#/$defs/leaf"}},"$defs":{"leaf":{"type":"string"}}}}
            """,
            """{"name":"user.created"}""",
        })
            (await tenant.Client.PostAsync("/event-types", type)).Is(201);
        return tenant;
    }

    private static JsonNode At(JsonNode document, string reference) =>
        reference.TrimStart('#', '/').Split('/').Aggregate(document, (at, name) => at[name]!);
}
