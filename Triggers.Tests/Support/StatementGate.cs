using System.Data.Common;
using Microsoft.EntityFrameworkCore.Diagnostics;

namespace Triggers.Tests.Support;

/// <summary>Lets a test do something between two statements of a request, as far as they are EF Core's.</summary>
internal sealed class StatementGate : DbCommandInterceptor
{
    private volatile Gate? _gate;

    /// <summary>Sends a request, and does something else before one of its statements is sent.</summary>
    /// <param name="table">Which statements count: those with this in their text.</param>
    /// <param name="number">The one of these that waits, from 1.</param>
    /// <param name="ask">The request.</param>
    /// <param name="meanwhile">What is done.</param>
    public async Task<Answer> AskAsync(string table, int number, Func<Task<Answer>> ask, Func<Task> meanwhile)
    {
        var gate = new Gate(table, number);
        _gate = gate;
        var asked = ask();
        await gate.Reached.Task.WaitAsync(Wait.Long, TestContext.Current.CancellationToken);
        await meanwhile();
        gate.Opened.SetResult();
        return await asked;
    }

    public override async ValueTask<InterceptionResult<DbDataReader>> ReaderExecutingAsync(
        DbCommand command, CommandEventData eventData, InterceptionResult<DbDataReader> result,
        CancellationToken cancellationToken = default)
    {
        if (_gate is { } gate && gate.IsFor(command))
        {
            gate.Reached.SetResult();
            await gate.Opened.Task.WaitAsync(Wait.Long, cancellationToken);
        }
        return result;
    }

    private sealed class Gate(string table, int number)
    {
        private int _seen;

        public TaskCompletionSource Reached { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public TaskCompletionSource Opened { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public bool IsFor(DbCommand command) =>
            command.CommandText.Contains(table, StringComparison.Ordinal) && Interlocked.Increment(ref _seen) == number;
    }
}
