using System.Runtime.CompilerServices;

namespace Triggers.Tests.Support;

/// <summary>The files beside the code.</summary>
internal static class Repository
{
    /// <summary>The full path of a file, from its parts below the root.</summary>
    public static string File(params ReadOnlySpan<string> parts) => Path.Combine([Root(), .. parts]);

    private static string Root([CallerFilePath] string here = "") =>
        Path.GetFullPath(Path.Combine(Path.GetDirectoryName(here)!, "..", ".."));
}
