using System.Diagnostics;
using System.Text;
using Fluid;
using Fluid.Values;

namespace Triggers.Core.Transformations;

/// <summary>A template can't be read, or what it does goes wrong or too far.</summary>
/// <param name="problem">In a sentence.</param>
/// <param name="line">In the template, from 1; 0 where none is to blame.</param>
/// <param name="column">In that line, from 1; 0 where none is to blame.</param>
internal sealed class TemplateException(string problem, int line = 0, int column = 0) : Exception(
    line == 0 ? problem : $"Line {line}, column {column}: {problem}")
{
    /// <summary>Without the place.</summary>
    public string Problem { get; } = problem;

    /// <summary>In the template, from 1; 0 where none is to blame.</summary>
    public int Line { get; } = line;

    /// <summary>In that line, from 1.</summary>
    public int Column { get; } = column;
}

/// <summary>
/// One run of a template, and what it has used up. Steps and work are counted, so that the same run always comes to the same end; the clock
/// only stops what they don't catch.
/// </summary>
internal sealed class TemplateRun : TemplateContext
{
    private readonly long _started = Stopwatch.GetTimestamp();
    private readonly long _maxWork;
    private long _work;

    /// <param name="limits">How far it may go.</param>
    /// <param name="dataBytes">The length of the event's data.</param>
    public TemplateRun(TransformationOptions limits, int dataBytes) : base(TemplateFilters.Options(limits.Statements))
    {
        Limits = limits;
        MaxText = Math.Max(limits.TextLength, 2 * dataBytes);
        _maxWork = Math.Max(limits.Work, 16L * MaxText);
    }

    /// <summary>How far it may go.</summary>
    public TransformationOptions Limits { get; }

    /// <summary>The longest text or list of this run; so long may its output be.</summary>
    public int MaxText { get; }

    /// <summary>Ends the run if it takes too long.</summary>
    public void CheckTime()
    {
        if (Stopwatch.GetElapsedTime(_started) > Limits.Time)
            throw new TemplateException(FormattableString.Invariant($"Takes longer than {Limits.Time.TotalSeconds:0.##} s."));
    }

    /// <summary>Counts what is read or made at once, in characters and items.</summary>
    public void Work(long size)
    {
        CheckTime();
        if (size > MaxText)
            throw new TemplateException($"A text or a list is longer than {MaxText} characters or items.");
        if ((_work += size) > _maxWork)
            throw new TemplateException($"Reads and makes more than {_maxWork} characters in all.");
    }

    /// <summary>Counts a value.</summary>
    public FluidValue Work(FluidValue value)
    {
        Work(JsonValues.SizeOf(value, MaxText));
        return value;
    }
}

/// <summary>Keeps what is written, up to the longest text of a run.</summary>
internal sealed class BoundedWriter(TemplateRun run) : TextWriter
{
    private readonly StringBuilder _text = new();

    public override Encoding Encoding => Encoding.UTF8;

    public override void Write(char value) => Write([value]);

    public override void Write(string? value) => Write(value.AsSpan());

    public override void Write(char[] buffer, int index, int count) => Write(buffer.AsSpan(index, count));

    public override void Write(ReadOnlySpan<char> buffer)
    {
        if (_text.Length + buffer.Length > run.MaxText)
            throw new TemplateException($"Writes more than {run.MaxText} characters.");
        _text.Append(buffer);
    }

    public override Task WriteAsync(char value)
    {
        Write(value);
        return Task.CompletedTask;
    }

    public override Task WriteAsync(string? value)
    {
        Write(value);
        return Task.CompletedTask;
    }

    public override Task WriteAsync(char[] buffer, int index, int count)
    {
        Write(buffer, index, count);
        return Task.CompletedTask;
    }

    public override string ToString() => _text.ToString();
}
