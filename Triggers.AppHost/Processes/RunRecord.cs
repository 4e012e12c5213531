using System.Text.Json;

namespace Triggers.AppHost.Processes;

/// <summary>What runs on a data directory, in <c>running.json</c> there: for the next start, should this one end without tidying up.</summary>
internal sealed class RunRecord
{
    private static readonly JsonSerializerOptions s_json = new(JsonSerializerDefaults.Web) { WriteIndented = true };

    private readonly Lock _lock = new();
    private readonly string _path;
    private readonly Content _content;

    private RunRecord(string path, Content content) => (_path, _content) = (path, content);

    public static RunRecord Create(string directory, ProcessIdentity? appHost)
    {
        var record = new RunRecord(PathIn(directory), new Content { AppHost = appHost, Guard = ProcessIdentity.Self });
        record.Write();
        return record;
    }

    public static Content? Read(string directory)
    {
        try
        {
            return JsonSerializer.Deserialize<Content>(File.ReadAllBytes(PathIn(directory)), s_json);
        }
        catch (Exception e) when (e is IOException or JsonException)
        {
            return null;
        }
    }

    public void Started(string name, ProcessIdentity process) => Change(content => content.Processes[name] = process);

    public void Ended(string name) => Change(content => content.Processes.Remove(name));

    public void Address(string name, string address) => Change(content => content.Addresses[name] = address);

    public void Delete() => File.Delete(_path);

    private void Change(Action<Content> change)
    {
        lock (_lock)
        {
            change(_content);
            Write();
        }
    }

    private void Write() => PrivateFile.Write(_path, JsonSerializer.Serialize(_content, s_json));

    private static string PathIn(string directory) => Path.Combine(directory, "running.json");

    internal sealed class Content
    {
        public ProcessIdentity? AppHost { get; init; }

        public ProcessIdentity? Guard { get; init; }

        public Dictionary<string, ProcessIdentity> Processes { get; init; } = [];

        /// <summary>URLs, and connection strings, by resource.</summary>
        public Dictionary<string, string> Addresses { get; init; } = [];
    }
}

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
