using Npgsql;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Core;

namespace Triggers.Api.Lists;

/// <summary>
/// Pages of a list that is read upwards. Ids are made before they are committed, by several processes: a cursor must not pass one that
/// comes later, so such a page ends where it is certain that nothing before its end is still on its way.
/// </summary>
internal static class Upwards
{
    /// <summary>
    /// An id below which no row is added any more, whatever list it belongs to: ids are made in the transaction that writes them, or a
    /// moment before. Of transactions that only read nothing comes; one that waits for a lock may be about to write.
    /// </summary>
    private static readonly string Complete = string.Create(System.Globalization.CultureInfo.InvariantCulture,
        $"""
        (SELECT uuid_at(least(clock_timestamp(), min(xact_start)) - interval '{RequestBudget.Clocks.TotalSeconds} seconds')
         FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND (backend_xid IS NOT NULL OR wait_event_type = 'Lock'))
        """);

    /// <summary>Before looking again whether a page is complete; each time twice as long.</summary>
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(150);

    /// <summary>Reads that id.</summary>
    public static async Task<Guid> ReadCompleteAsync(HttpContext context, CancellationToken cancellationToken)
    {
        await using var command = context.RequestServices.GetRequiredService<NpgsqlDataSource>().CreateCommand($"SELECT {Complete}");
        return (Guid)(await command.ExecuteScalarAsync(cancellationToken))!;
    }

    /// <summary>Reads a page as far as it is complete. The last page of a list is, since nobody goes on behind it.</summary>
    /// <param name="context">The request that asks.</param>
    /// <param name="complete">Reads an id below which no row is added any more.</param>
    /// <param name="page">Reads the page, and the id the next one begins after.</param>
    /// <param name="id">What the list is in the order of.</param>
    /// <exception cref="ApiException"><c>event_not_yet_visible</c>: nothing of it is complete yet.</exception>
    public static async Task<(List<T> Rows, Guid? NextAfter)> ReadAsync<T>(
        HttpContext context, Func<Task<Guid>> complete, Func<Task<(List<T> Rows, Guid? NextAfter)>> page, Func<T, Guid> id)
    {
        var time = context.RequestServices.GetRequiredService<TimeProvider>();
        var limit = Deadline.Of(context).Limit.Less(RequestBudget.AfterWait);
        for (var pause = s_pause; ; pause *= 2)
        {
            // Read before the page: what it does not show is not below.
            var below = await complete();
            var (rows, next) = await page();
            if (next is null || next.Value.CompareTo(below) < 0)
                return (rows, next);
            rows.RemoveAll(row => id(row).CompareTo(below) >= 0);
            if (rows.Count > 0)
                return (rows, id(rows[^1]));
            var left = limit.Left;
            if (left == TimeSpan.Zero)
                throw ApiException.NotYetVisible("Something older than the end of this page may still come; come again in a moment.");
            await Task.Delay(pause < left ? pause : left, time, context.RequestAborted);
        }
    }
}
