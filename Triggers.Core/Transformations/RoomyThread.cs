namespace Triggers.Core.Transformations;

/// <summary>
/// A thread on whose stack a template can be read and run that is as nested as templates may be. On another one the process could end: an
/// overflow of the stack can't be caught.
/// </summary>
internal static class RoomyThread
{
    private const int StackBytes = 16 * 1024 * 1024;

    /// <summary>Starts one that ends with the process, or before.</summary>
    public static Thread Start(string name, Action work)
    {
        var thread = new Thread(() => work(), StackBytes) { IsBackground = true, Name = name };
        thread.Start();
        return thread;
    }

    /// <summary>Does something on one.</summary>
    public static Task<T> RunAsync<T>(Func<T> work)
    {
        var done = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        Start("transformation", () =>
        {
            try
            {
                done.SetResult(work());
            }
            catch (Exception e)
            {
                done.SetException(e);
            }
        });
        return done.Task;
    }

    /// <summary>Does something short on one, and waits for it.</summary>
    public static T Run<T>(Func<T> work) => RunAsync(work).GetAwaiter().GetResult();
}
