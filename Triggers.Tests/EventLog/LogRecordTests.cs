using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using CsCheck;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.EventLog.Kafka;

namespace Triggers.Tests.EventLog;

public sealed class LogRecordTests
{
    private static readonly LogRecord s_record = new(
        TypeId.NewGuid(), TypeId.NewGuid(), "order.created", "ext", "shop",
        "customer-1", new DateTimeOffset(2026, 1, 31, 10, 0, 0, TimeSpan.FromHours(1)),
        "correlation", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        Encoding.UTF8.GetBytes(""" { "a": [1.0, 1e3], "b":  "\u00e4ß" } """.Trim()))
    {
        DeliverAt = new DateTimeOffset(2026, 2, 1, 0, 0, 0, TimeSpan.Zero),
        ExpiresAt = new DateTimeOffset(2026, 2, 1, 0, 0, 0, TimeSpan.Zero).AddTicks(10),
    };

    [Fact]
    public void A_record_is_read_as_it_was_written()
    {
        var read = LogRecord.Decode(s_record.ToMessage().Value);

        Assert.Equal(s_record with { Data = default }, read with { Data = default });
        Assert.Equal(s_record.Data.ToArray(), read.Data.ToArray());
    }

    [Fact]
    public void What_few_events_have_is_read_as_it_was_written()
    {
        var attributes = new EventAttributes
        {
            SpecVersion = "1.0",
            DataForm = DataForm.Base64,
            DataContentType = "image/png",
            DataSize = 0,
            Extensions = new Dictionary<string, JsonElement> { ["a"] = JsonElement.Parse("\"ß\""), ["b"] = JsonElement.Parse("7") },
        };

        var value = (s_record with { Attributes = attributes }).ToMessage().Value;

        Assert.Equal(attributes.ToJson(), LogRecord.Decode(value).Attributes!.ToJson());
        Assert.Equal(
            """{"specVersion":"1.0","dataForm":"base64","dataContentType":"image/png","dataSize":0,"extensions":{"a":"ß","b":7}}""",
            JsonNode.Parse(value)!["attributes"]!.ToJsonString(new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }));
    }

    [Fact]
    public void Texts_of_all_kinds_survive()
    {
        Gen.Select(Gen.String, Gen.String.Null(), Gen.String.Null()).Sample((type, source, subject) =>
        {
            // Half a surrogate pair is no text, and HTTP lets none in.
            if (new[] { type, source, subject }.Any(t => t is not null && Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(t)) != t))
                return true;
            var read = LogRecord.Decode((s_record with { Type = type, Source = source, Subject = subject }).ToMessage().Value);
            return (read.Type, read.Source, read.Subject) == (type, source, subject);
        });
    }

    [Fact]
    public void Events_of_one_subject_have_one_key_and_tenants_do_not_share_it()
    {
        static string Key(LogRecord record) => Encoding.UTF8.GetString(record.ToMessage().Key);

        Assert.Equal(Key(s_record), Key(s_record with { Id = TypeId.NewGuid() }));
        Assert.NotEqual(Key(s_record), Key(s_record with { TenantId = TypeId.NewGuid() }));
        Assert.NotEqual(Key(s_record with { Subject = null }), Key(s_record with { Subject = null, Id = TypeId.NewGuid() }));
    }

    [Fact]
    public void Headers_tell_what_it_is_without_reading_the_value()
    {
        var headers = (s_record with { Attributes = new() { TraceState = "vendor=1" } }).ToMessage().Headers
            .ToDictionary(h => h.Key, h => Encoding.UTF8.GetString(h.GetValueBytes()));

        Assert.Equal(TypeId.Format(TypeId.Event, s_record.Id), headers["ce_id"]);
        Assert.Equal(("1.0", "order.created", "shop", "customer-1"), (
            headers["ce_specversion"], headers["ce_type"], headers["ce_source"], headers["ce_subject"]));
        Assert.Equal((s_record.TraceParent, "vendor=1", "correlation"), (
            headers["traceparent"], headers["tracestate"], headers["correlation-id"]));
    }

    [Fact]
    public void A_member_that_is_not_known_here_is_passed_over()
    {
        var text = Encoding.UTF8.GetString(s_record.ToMessage().Value)
            .Replace("\"data\":", "\"later\":{\"data\":2},\"data\":", StringComparison.Ordinal);

        Assert.Equal(s_record.Data.ToArray(), LogRecord.Decode(Encoding.UTF8.GetBytes(text)).Data.ToArray());
    }

    [Theory]
    [InlineData("", "JSON")]
    [InlineData("nonsense", "JSON")]
    [InlineData("[]", "not a JSON object")]
    [InlineData("""{"v":2}""", "version 2")]
    [InlineData("""{"tenant":"x"}""", "no v")]
    [InlineData("""{"v":1}""", "no tenant")]
    [InlineData("""{"v":1,"tenant":"ten_x"}""", "tenant is no id")]
    [InlineData("""{"v":1,"tenant":3}""", "JSON object of this encoding")]
    [InlineData("""{"v":1} {}""", "JSON")]
    public void What_is_none_of_ours_is_refused_with_the_reason(string value, string reason)
    {
        var refused = Assert.Throws<InvalidRecordException>(() => LogRecord.Decode(Encoding.UTF8.GetBytes(value)));

        Assert.Contains(reason, refused.Message);
    }

    [Fact]
    public void A_record_without_a_value_is_refused() => Assert.Throws<InvalidRecordException>(() => LogRecord.Decode(null));
}
