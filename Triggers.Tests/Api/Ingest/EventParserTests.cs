using System.Text;
using System.Text.Json;
using CsCheck;
using Triggers.Api.Errors;
using Triggers.Api.Ingest;

namespace Triggers.Tests.Api.Ingest;

public sealed class EventParserTests
{
    private static readonly Gen<string> s_space = Gen.OneOf(Gen.Const(""), Gen.Const(" "), Gen.Const("\r\n\t"));

    private static readonly Gen<string> s_json = Gen.Recursive<string>((depth, inner) => depth > 4
        ? Gen.OneOf(Gen.Const("null"), Gen.Int.Select(i => i.ToString()))
        : Gen.OneOf(
            Gen.Const("true"), Gen.Const("1.50e-7"), Gen.Const("\"\\u0000\\ud800\""),
            Gen.String.Select(text => JsonSerializer.Serialize(text)),
            Gen.Select(s_space, inner.Array[0, 4]).Select((space, items) => $"[{space}{string.Join(space + "," + space, items)}{space}]"),
            Gen.Select(s_space, inner.Array[0, 4]).Select((space, items) =>
                $"{{{space}{string.Join(",", items.Select((item, i) => $"\"m{i % 2}\"{space}:{space}{item}"))}{space}}}")));

    [Fact]
    public void Data_is_the_exact_slice_wherever_it_stands() =>
        Gen.Select(s_json, s_space, Gen.Bool).Sample((data, space, first) =>
        {
            var member = $"\"data\"{space}:{space}{data}{space}";
            const string type = "\"type\":\"a\"";
            var parsed = EventParser.ReadOne(
                Encoding.UTF8.GetBytes($"{space}{{{(first ? member + "," + type : type + "," + member)}}}{space}"));
            return parsed.Errors.Count == 0 && parsed.Type == "a" && Encoding.UTF8.GetString(parsed.Data.Span) == data;
        });

    [Fact]
    public void In_a_batch_every_event_has_its_own_slice() =>
        Gen.Select(s_json.Array[1, 20], s_space).Sample((data, space) =>
        {
            var events = data.Select(d => $"{{\"type\":\"a\",{space}\"data\":{d}}}");
            var parsed = EventParser.ReadBatch(Encoding.UTF8.GetBytes($"{{\"events\":[{string.Join("," + space, events)}]}}"), 20);
            return parsed.Select(e => Encoding.UTF8.GetString(e.Data.Span)).SequenceEqual(data) && parsed.All(e => e.Errors.Count == 0);
        });

    [Fact]
    public void Whatever_comes_is_an_event_with_mistakes_or_an_error_of_the_contract() =>
        Gen.Select(s_json, Gen.Int[0, 500], Gen.Char).Sample((data, at, c) =>
        {
            var text = $"{{\"type\":\"a\",\"data\":{data}}}".ToCharArray();
            text[at % text.Length] = c;
            var body = Encoding.UTF8.GetBytes(new string(text));
            try
            {
                EventParser.ReadOne(body);
                EventParser.ReadBatch(body, 10);
                return false;
            }
            catch (ApiException e)
            {
                return e.Code.Status == 400;
            }
        });
}
