using System.Security.Cryptography;

namespace Triggers.AppHost;

/// <summary>Files that only their owner may read.</summary>
internal static class PrivateFile
{
    /// <summary>Replaces the file as a whole: a reader sees the old or the new text, never half of one.</summary>
    public static void Write(string path, string text)
    {
        var options = new FileStreamOptions { Mode = FileMode.Create, Access = FileAccess.Write };
        if (!OperatingSystem.IsWindows())
            options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        var beside = path + ".new";
        using (var writer = new StreamWriter(beside, options))
            writer.Write(text);
        File.Move(beside, path, overwrite: true);
    }

    /// <summary>What the file holds, generated and kept at the first call.</summary>
    public static string ReadOrCreate(string path, Func<string> generate)
    {
        if (!File.Exists(path))
            Write(path, generate());
        return File.ReadAllText(path).Trim();
    }
}

/// <summary>The first key of a new system. Only the AppHost makes one up; the services are told.</summary>
internal static class AdminKey
{
    private const string Base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    /// <summary><c>trg_</c> and 43 letters and digits: 256 random bits.</summary>
    public static string Generate() => "trg_" + RandomNumberGenerator.GetString(Base62, 43);
}
