using System.Collections.Concurrent;
using System.Text.RegularExpressions;
using Fluid;
using Fluid.Values;

namespace Triggers.Core.Transformations;

/// <summary>
/// The filters that templates may use: those of Liquid, each bounded by what goes in and comes out of it, and <c>json</c>. Those that read
/// files, or whose cost has no bound, are not there.
/// </summary>
internal static partial class TemplateFilters
{
    private const int MaxDateFormat = 256;

    private static readonly string[] s_names =
    [
        "append", "capitalize", "downcase", "lstrip", "rstrip", "strip", "strip_newlines", "newline_to_br", "prepend", "remove", "replace",
        "replace_first", "replace_last", "slice", "split", "truncate", "truncatewords", "upcase", "strip_html", "escape", "escape_once",
        "url_encode", "url_decode", "base64_encode", "base64_decode", "base64_url_safe_encode", "base64_url_safe_decode", "sha256",
        "hmac_sha256", "join", "first", "last", "concat", "map", "reverse", "size", "sort", "sort_natural", "uniq", "where", "sum", "find",
        "find_index", "has", "reject", "compact", "default", "date", "raw", "abs", "at_least", "at_most", "ceil", "divided_by", "floor",
        "minus", "modulo", "plus", "round", "times",
    ];

    // As many as there are settings in the process.
    private static readonly ConcurrentDictionary<int, TemplateOptions> s_options = new();

    /// <summary>Options with these filters, in which nothing reads files, members of .NET objects, or the machine's time zone.</summary>
    public static TemplateOptions Options(int maxStatements) => s_options.GetOrAdd(maxStatements, Make);

    private static TemplateOptions Make(int maxStatements)
    {
        var all = new TemplateOptions().Filters;
        var options = new TemplateOptions
        {
            MaxSteps = maxStatements,
            MaxRecursion = 100,
            StrictFilters = true,
            TimeZone = TimeZoneInfo.Utc,
            Now = TimeProvider.System.GetUtcNow,
        };
        options.Filters.Clear();
        foreach (var name in s_names)
        {
            if (!all.TryGetValue(name, out var filter))
                throw new InvalidOperationException($"There is no filter {name}.");
            options.Filters.AddFilter(name, Bounded(name, filter));
        }
        options.Filters.AddFilter("json", Bounded("json", (input, _, _) => new StringValue(JsonValues.ToJson(input), encode: false)));
        return options;
    }

    /// <summary>Whether there is such a filter.</summary>
    public static bool Has(string name) => name == "json" || s_names.Contains(name);

    private static FilterDelegate Bounded(string name, FilterDelegate filter) => async (input, arguments, context) =>
    {
        var run = (TemplateRun)context;
        var size = JsonValues.SizeOf(run.Work(input), run.MaxText);
        for (var i = 0; i < arguments.Count; i++)
            run.Work(arguments.At(i));
        EnsureBounded(name, size, input, arguments, run);
        return run.Work(await filter(input, arguments, context));
    };

    /// <summary>What may come out much longer than all that goes in, or take long to find, is judged before it is done.</summary>
    private static void EnsureBounded(string name, long size, FluidValue input, FilterArguments arguments, TemplateRun run)
    {
        switch (name)
        {
            case "replace" or "remove" or "replace_first" or "replace_last" or "split":
                var sought = arguments.At(0).ToStringValue().Length;
                EnsureShort(sought, run);
                if (name == "replace")
                    run.Work(size + size / Math.Max(1, sought) * arguments.At(1).ToStringValue().Length);
                break;
            case "join" when input is ArrayValue list:
                run.Work(size + (long)list.Values.Count * arguments.At(0).ToStringValue().Length);
                break;
            case "date" when arguments.At(0).ToStringValue() is var format && (format.Length > MaxDateFormat || Width().IsMatch(format)):
                throw new TemplateException($"A date's format has at most {MaxDateFormat} characters, and widths below 100.");
            default:
                break;
        }
    }

    /// <summary>Refuses a text that is too long to be looked for in others.</summary>
    public static void EnsureShort(int sought, TemplateRun run)
    {
        if (sought > run.Limits.SoughtLength)
            throw new TemplateException($"A text to look for has at most {run.Limits.SoughtLength} characters.");
    }

    [GeneratedRegex("[0-9]{3}", RegexOptions.CultureInvariant)]
    private static partial Regex Width();
}
