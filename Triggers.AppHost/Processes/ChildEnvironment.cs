using System.Collections;

namespace Triggers.AppHost.Processes;

/// <summary>What children inherit: everything, except what says where this process itself should listen.</summary>
internal static class ChildEnvironment
{
    private static readonly string[] s_addresses = ["URLS", "HTTP_PORTS", "HTTPS_PORTS"];

    public static Dictionary<string, string> Inherited() => From(Environment.GetEnvironmentVariables());

    internal static Dictionary<string, string> From(IDictionary variables) => variables
        .Cast<DictionaryEntry>()
        .Select(entry => (Name: (string)entry.Key, Value: (string?)entry.Value ?? ""))
        .Where(v => v.Name != "DOTNET_LAUNCH_PROFILE" && !IsAddress(v.Name))
        .ToDictionary(v => v.Name, v => v.Value, OperatingSystem.IsWindows() ? StringComparer.OrdinalIgnoreCase : StringComparer.Ordinal);

    private static bool IsAddress(string name) => s_addresses.Any(address =>
        name.Equals(address, StringComparison.OrdinalIgnoreCase) || name.EndsWith("_" + address, StringComparison.OrdinalIgnoreCase));
}
