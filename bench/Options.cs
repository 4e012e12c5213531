namespace Triggers.Bench;

/// <summary>What was asked for: flags, and names each followed by a value.</summary>
internal sealed class Options(IReadOnlyList<string> arguments)
{
    public bool Has(string flag) => arguments.Contains(flag);

    public string Of(string name, string otherwise)
    {
        var at = arguments.ToList().IndexOf(name);
        return at >= 0 && at + 1 < arguments.Count ? arguments[at + 1] : otherwise;
    }

    public int NumberOf(string name, int otherwise) => int.Parse(Of(name, $"{otherwise}"));
}
