using System.Buffers;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using Fluid;
using Fluid.Values;

namespace Triggers.Core.Transformations;

/// <summary>JSON as templates see it, and back.</summary>
internal static class JsonValues
{
    private static readonly JsonWriterOptions s_options = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>A value of a template. Numbers that a decimal does not hold are texts.</summary>
    public static FluidValue Of(JsonElement element) => element.ValueKind switch
    {
        JsonValueKind.Object => new DictionaryValue(new Members(element)),
        JsonValueKind.Array => new ArrayValue([.. element.EnumerateArray().Select(Of)]),
        JsonValueKind.String => new StringValue(TextOf(element)),
        JsonValueKind.Number when element.TryGetDecimal(out var number) => NumberValue.Create(number),
        JsonValueKind.Number => new StringValue(element.GetRawText()),
        JsonValueKind.True => BooleanValue.True,
        JsonValueKind.False => BooleanValue.False,
        _ => NilValue.Instance,
    };

    /// <summary>A value as JSON; objects of an event as they were received.</summary>
    public static string ToJson(FluidValue value)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(buffer, s_options))
            Write(json, value);
        return Encoding.UTF8.GetString(buffer.WrittenSpan);
    }

    /// <summary>How long a value is, in characters and items; no more is counted than a little above <paramref name="most"/>.</summary>
    public static long SizeOf(FluidValue value, long most)
    {
        switch (value)
        {
            case StringValue text:
                return text.ToStringValue().Length;
            case DictionaryValue members when members.ToObjectValue() is Members of:
                return of.Bytes;
            case ArrayValue list:
                long size = list.Values.Count;
                for (var i = 0; i < list.Values.Count && size <= most; i++)
                    size += SizeOf(list.Values[i], most);
                return size;
            default:
                return 1;
        }
    }

    private static void Write(Utf8JsonWriter json, FluidValue value)
    {
        switch (value)
        {
            case BooleanValue:
                json.WriteBooleanValue(value.ToBooleanValue());
                break;
            case NumberValue:
                json.WriteNumberValue(value.ToNumberValue());
                break;
            case DictionaryValue members when members.ToObjectValue() is Members of:
                json.WriteRawValue(of.Json, skipInputValidation: true);
                break;
            case ArrayValue list:
                json.WriteStartArray();
                foreach (var item in list.Values)
                    Write(json, item);
                json.WriteEndArray();
                break;
            default:
                if (value.IsNil())
                    json.WriteNullValue();
                else
                    json.WriteStringValue(value.ToStringValue());
                break;
        }
    }

    private static string TextOf(JsonElement element) => JsonText.Of(element)
        ?? throw new TemplateException("The data has text that is no Unicode: half of a surrogate pair.");

    /// <summary>The members of an object; each is read once, when it is asked for.</summary>
    private sealed class Members(JsonElement element) : IFluidIndexable
    {
        private readonly Dictionary<string, FluidValue?> _read = new(StringComparer.Ordinal);

        public ReadOnlySpan<byte> Json => JsonMarshal.GetRawUtf8Value(element);

        public int Bytes => Json.Length;

        public int Count => element.GetPropertyCount();

        public IEnumerable<string> Keys => element.EnumerateObject().Select(member => member.Name);

        public bool TryGetValue(string name, out FluidValue value)
        {
            if (!_read.TryGetValue(name, out var read))
                _read[name] = read = element.TryGetProperty(name, out var member) ? Of(member) : null;
            value = read ?? NilValue.Instance;
            return read is not null;
        }
    }
}
