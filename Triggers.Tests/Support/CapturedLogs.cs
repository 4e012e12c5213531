using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;

namespace Triggers.Tests.Support;

/// <summary>A line of a log, with all that goes out with it.</summary>
internal sealed record LogLine(
    string Category, LogLevel Level, string Message, string? Exception, IReadOnlyList<KeyValuePair<string, object?>> Values)
{
    /// <summary>A value of the line or of one of its scopes.</summary>
    public string? this[string name] => Values.LastOrDefault(value => value.Key == name).Value?.ToString();

    /// <summary>Everything in it.</summary>
    public override string ToString() =>
        $"{Level} {Category} {Message} {Exception} {string.Join(' ', Values.Select(value => $"{value.Key}={value.Value}"))}";
}

/// <summary>Keeps every line that a service writes.</summary>
internal sealed class CapturedLogs : ILoggerProvider, ISupportExternalScope
{
    private readonly ConcurrentQueue<LogLine> _lines = new();
    private IExternalScopeProvider? _scopes;

    public IReadOnlyCollection<LogLine> Lines => _lines;

    public ILogger CreateLogger(string categoryName) => new Logger(this, categoryName);

    public void SetScopeProvider(IExternalScopeProvider scopeProvider) => _scopes = scopeProvider;

    public void Dispose()
    {
    }

    private sealed class Logger(CapturedLogs logs, string category) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => logs._scopes?.Push(state);

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(
            LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            var values = new List<KeyValuePair<string, object?>>();
            logs._scopes?.ForEachScope((scope, all) => Add(scope, all), values);
            Add(state, values);
            logs._lines.Enqueue(new LogLine(category, logLevel, formatter(state, exception), exception?.ToString(), values));
        }

        private static void Add(object? of, List<KeyValuePair<string, object?>> values)
        {
            if (of is IEnumerable<KeyValuePair<string, object?>> pairs)
                values.AddRange(pairs);
            else
                values.Add(new KeyValuePair<string, object?>("", of));
        }
    }
}
