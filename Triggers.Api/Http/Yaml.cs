using System.Buffers;
using System.Globalization;
using System.Numerics;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Triggers.Api.Errors;
using YamlDotNet.Core;
using YamlDotNet.Core.Events;
using YamlScalar = YamlDotNet.Core.Events.Scalar;

namespace Triggers.Api.Http;

/// <summary>
/// JSON written as YAML 1.2 (its core schema), and back: one document, without anchors, aliases and tags, so that nothing in it is larger
/// than it looks.
/// </summary>
internal static partial class Yaml
{
    /// <summary>RFC 9512.</summary>
    public const string MediaType = "application/yaml";

    private const int MaxNumberLength = 64;

    /// <summary>The same as JSON.</summary>
    /// <param name="utf8">Valid UTF-8.</param>
    /// <param name="maxDepth">The deepest nesting.</param>
    /// <exception cref="ApiException"><c>malformed_yaml</c></exception>
    public static ReadOnlyMemory<byte> ToJson(ReadOnlyMemory<byte> utf8, int maxDepth)
    {
        var json = new ArrayBufferWriter<byte>(utf8.Length + 16);
        using var writer = new Utf8JsonWriter(json, new JsonWriterOptions
        {
            SkipValidation = true,
            Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        });
        var parser = new Parser(new StringReader(Encoding.UTF8.GetString(utf8.Span)));
        try
        {
            parser.Consume<StreamStart>();
            parser.Consume<DocumentStart>();
            Write(parser, writer, maxDepth);
            parser.Consume<DocumentEnd>();
            if (parser.Current is not StreamEnd)
                throw Malformed(parser.Current!.Start, "There is more than one document.");
        }
        catch (YamlException e)
        {
            throw Malformed(e.Start, e is { InnerException: null } ? e.Message : "It can't be read.");
        }
        // Numbers of characters that are none, and halves of surrogate pairs.
        catch (ArgumentException)
        {
            throw Malformed(parser.Current?.End ?? Mark.Empty, "There is an escape that stands for no character.");
        }
        // What the scanner of the library did not reckon with.
        catch (InvalidOperationException)
        {
            throw Malformed(parser.Current?.End ?? Mark.Empty, "It can't be read.");
        }
        writer.Flush();
        return json.WrittenMemory;
    }

    /// <summary>JSON as YAML: what is to be text is quoted where it could be taken for something else, by YAML 1.1 too.</summary>
    public static string FromJson(JsonNode? json)
    {
        var text = new StringWriter { NewLine = "\n" };
        var emitter = new Emitter(text, new EmitterSettings(2, int.MaxValue, false, 1_024, false, true));
        emitter.Emit(new StreamStart());
        emitter.Emit(new DocumentStart());
        Emit(json, emitter);
        emitter.Emit(new DocumentEnd(isImplicit: true));
        emitter.Emit(new StreamEnd());
        return text.ToString();
    }

    private static void Write(Parser parser, Utf8JsonWriter writer, int depth)
    {
        var at = parser.Current!;
        if (at is NodeEvent node && (!node.Anchor.IsEmpty || !(node.Tag.IsEmpty || node.Tag.IsNonSpecific)) || at is AnchorAlias)
            throw Malformed(at.Start, "There are no anchors, aliases and tags here.");
        if (depth == 0)
            throw Malformed(at.Start, "It is nested too deeply.");
        parser.MoveNext();
        switch (at)
        {
            case MappingStart:
                writer.WriteStartObject();
                while (parser.Current is not MappingEnd)
                {
                    if (parser.Current is not YamlScalar { Anchor.IsEmpty: true } name || !(name.Tag.IsEmpty || name.Tag.IsNonSpecific))
                        throw Malformed(parser.Current!.Start, "The name of a member must be text.");
                    writer.WritePropertyName(name.Value);
                    parser.MoveNext();
                    Write(parser, writer, depth - 1);
                }
                writer.WriteEndObject();
                parser.MoveNext();
                break;
            case SequenceStart:
                writer.WriteStartArray();
                while (parser.Current is not SequenceEnd)
                    Write(parser, writer, depth - 1);
                writer.WriteEndArray();
                parser.MoveNext();
                break;
            case YamlScalar { Style: ScalarStyle.Plain } plain:
                WritePlain(plain, writer);
                break;
            case YamlScalar quoted:
                writer.WriteStringValue(quoted.Value);
                break;
            default:
                throw Malformed(at.Start, "It can't be read.");
        }
    }

    private static void WritePlain(YamlScalar plain, Utf8JsonWriter writer)
    {
        switch (plain.Value)
        {
            case "" or "~" or "null" or "Null" or "NULL":
                writer.WriteNullValue();
                break;
            case "true" or "True" or "TRUE":
                writer.WriteBooleanValue(true);
                break;
            case "false" or "False" or "FALSE":
                writer.WriteBooleanValue(false);
                break;
            case var text when Number().Match(text) is { Success: true } number:
                if (text.Length > MaxNumberLength)
                    throw Malformed(plain.Start, $"A number has at most {MaxNumberLength} characters; quote what is to be text.");
                writer.WriteRawValue(JsonNumber(number), skipInputValidation: true);
                break;
            case var text when NoJsonNumber().IsMatch(text):
                throw Malformed(plain.Start, "Infinity, and what is no number, are not JSON; quote what is to be text.");
            default:
                writer.WriteStringValue(plain.Value);
                break;
        }
    }

    private static string JsonNumber(Match number)
    {
        if (number.Groups["hex"] is { Success: true } hex)
            return BigInteger.Parse("0" + hex.Value, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture).ToString();
        if (number.Groups["octal"] is { Success: true } octal)
            return octal.Value.Aggregate(BigInteger.Zero, (sum, digit) => sum * 8 + (digit - '0')).ToString();
        var whole = number.Groups["whole"].Value.TrimStart('0');
        var fraction = number.Groups["fraction"].Value;
        return (number.Groups["sign"].Value == "-" ? "-" : "") + (whole.Length == 0 ? "0" : whole)
            + (fraction.Length == 0 ? "" : "." + fraction) + number.Groups["exponent"].Value;
    }

    private static void Emit(JsonNode? json, Emitter emitter)
    {
        switch (json)
        {
            case JsonObject members:
                emitter.Emit(new MappingStart(
                    AnchorName.Empty, TagName.Empty, isImplicit: true, members.Count == 0 ? MappingStyle.Flow : MappingStyle.Block));
                foreach (var (name, value) in members)
                {
                    emitter.Emit(Text(name));
                    Emit(value, emitter);
                }
                emitter.Emit(new MappingEnd());
                break;
            case JsonArray items:
                emitter.Emit(new SequenceStart(AnchorName.Empty, TagName.Empty, isImplicit: true,
                    items.All(item => item is null or JsonValue) ? SequenceStyle.Flow : SequenceStyle.Block));
                foreach (var item in items)
                    Emit(item, emitter);
                emitter.Emit(new SequenceEnd());
                break;
            case JsonValue value when value.GetValueKind() == JsonValueKind.String:
                emitter.Emit(Text(value.GetValue<string>()));
                break;
            default:
                emitter.Emit(new YamlScalar(json?.ToJsonString() ?? "null"));
                break;
        }
    }

    private static YamlScalar Text(string text) => new(
        AnchorName.Empty, TagName.Empty, text, IsPlain().IsMatch(text) && !IsWord().IsMatch(text) ? ScalarStyle.Plain
            : text.Contains('\n') && IsBlock().IsMatch(text) ? ScalarStyle.Literal : ScalarStyle.DoubleQuoted,
        isPlainImplicit: true, isQuotedImplicit: true);

    private static ApiException Malformed(Mark at, string problem) =>
        new(ErrorCodes.MalformedYaml, $"The body is not YAML as it is read here: line {at.Line}, column {at.Column}. {problem}");

    [GeneratedRegex(
        """
        ^(?: 0o(?<octal>[0-7]+) | 0x(?<hex>[0-9a-fA-F]+) |
        (?<sign>[-+]?)(?: (?<whole>[0-9]+)(?:\.(?<fraction>[0-9]*))? | \.(?<fraction>[0-9]+) )(?<exponent>[eE][-+]?[0-9]+)? )$(?!\n)
        """, RegexOptions.IgnorePatternWhitespace | RegexOptions.CultureInvariant)]
    private static partial Regex Number();

    [GeneratedRegex(@"^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")]
    private static partial Regex NoJsonNumber();

    /// <summary>Nothing in it means anything, wherever it stands.</summary>
    [GeneratedRegex(@"^[A-Za-z_/][A-Za-z0-9_./@-]*( [A-Za-z0-9_./@-]+|:[/A-Za-z0-9_.@-]+)*$(?!\n)")]
    private static partial Regex IsPlain();

    [GeneratedRegex("^(null|true|false|yes|no|on|off|y|n)$", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex IsWord();

    /// <summary>Lines of printable characters, of which the first is not indented.</summary>
    [GeneratedRegex(@"^[!-~][ -~]*(\n([!-~][ -~]*)?)*$")]
    private static partial Regex IsBlock();
}
