using System.Reflection;

namespace Triggers.AppHost;

/// <summary>The engine that this AppHost was built for, and why; <c>AppHostEngine.props</c> chose it.</summary>
internal static class Engine
{
    public static string Name { get; } = Metadata("AppHostEngine");

    public static string Reason { get; } = Metadata("AppHostEngineReason");

    /// <summary>The first line that every start prints.</summary>
    /// <param name="data">Where the data is, as in <c>in /home/me/triggers/.data</c>.</param>
    public static string Introduction(string data)
    {
        var other = Name == "aspire" ? "processes" : "aspire";
        return $"Engine: {Name} ({Reason}; override with -p:AppHostEngine={other}), data {data}";
    }

    private static string Metadata(string key) => typeof(Engine).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>()
        .First(attribute => attribute.Key == key).Value ?? "";
}
