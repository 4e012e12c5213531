using System.Diagnostics;
using System.Linq.Expressions;
using Microsoft.AspNetCore.Http.Extensions;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Errors;
using Triggers.Api.Operations;
using Triggers.Api.Requests;
using Triggers.Core;

namespace Triggers.Api.Lists;

/// <summary>
/// The query of a list. What the operation doesn't name is refused; every mistake is answered at once. Lists are in the order of
/// ids, which is that of creation, and a page begins after the id in its cursor: no counting, no offsets.
/// </summary>
internal sealed class ListRequest
{
    private const int FirstChunk = 500;
    private const int LargestChunk = 8_000;

    private readonly HttpContext _context;
    private readonly Dictionary<string, Parameter> _parameters;
    private readonly FieldErrors _errors = new("The query has mistakes; see errors.");

    private ListRequest(HttpContext context, bool newestFirst)
    {
        _context = context;
        _parameters = context.GetEndpoint()!.Metadata.GetRequiredMetadata<Operation>().Query.ToDictionary(p => p.Name);
        QueryNames.Check(context, _errors);

        Limit = _parameters.ContainsKey(ListParameters.Limit.Name) ? Number(ListParameters.Limit.Name) : 1;
        NewestFirst = _parameters.ContainsKey(ListParameters.Order.Name) && OneOf(ListParameters.Order.Name) is { } order ? order == "desc"
            : newestFirst;
        if (Text(ListParameters.Cursor.Name) is { } cursor)
            After = Cursor.TryRead(cursor, Filters, out var after) ? after
                : Refuse<Guid?>("cursor", "Is no cursor of a list with these filters.");
    }

    /// <summary>The most items of the page.</summary>
    public int Limit { get; }

    /// <summary>Which end the list begins at.</summary>
    public bool NewestFirst { get; }

    /// <summary>The id the page begins after.</summary>
    public Guid? After { get; }

    // Everything that decides which items the list has, and in which order.
    private string Filters => _context.Request.Path + string.Concat(_context.Request.Query
        .Where(p => p.Key is not ("cursor" or "limit" or "wait"))
        .OrderBy(p => p.Key, StringComparer.Ordinal)
        .Select(p => $"\n{p.Key}={p.Value}"));

    /// <summary>Reads the query of this request.</summary>
    public static ListRequest Of(HttpContext context, bool newestFirst = true) => new(context, newestFirst);

    /// <summary>Ends the request if there was a mistake. To be called once everything is read.</summary>
    public void EnsureValid() => _errors.ThrowIfAny();

    /// <summary>A parameter's text.</summary>
    public string? Text(string name)
    {
        if (Raw(name) is not { } text)
            return null;
        var max = _parameters[name].MaxLength;
        return Fields.IsText(text, 1, max) ? text : Refuse<string?>(name, $"Must be text of 1 to {max} characters.");
    }

    /// <summary>A parameter that is a whole number; what it is otherwise when it is left out.</summary>
    public int Number(string name)
    {
        var (min, max, ifLeftOut) = _parameters[name].Range;
        if (Raw(name) is not { } text)
            return ifLeftOut;
        return int.TryParse(text, System.Globalization.NumberStyles.None, null, out var number) && number >= min && number <= max
            ? number
            : Refuse<int>(name, $"Must be a whole number from {min} to {max}.");
    }

    /// <summary>A parameter that is an id.</summary>
    public Guid? Id(string name)
    {
        if (Raw(name) is not { } text)
            return null;
        var prefix = _parameters[name].IdPrefix!;
        return TypeId.TryParse(prefix, text, out var id) ? id : Refuse<Guid?>(name, $"Must be an id that begins with {prefix}_.");
    }

    /// <summary>A parameter that is one of a few words.</summary>
    public T? OneOf<T>(string name) where T : struct, Enum =>
        OneOf(name) is { } text && SnakeCase<T>.TryParse(text, out var value) ? value : null;

    /// <summary>The same where the words are no enum.</summary>
    public string? OneOf(string name)
    {
        if (Raw(name) is not { } text)
            return null;
        var values = _parameters[name].Values;
        return values.Contains(text) ? text : Refuse<string>(name, $"Must be one of {string.Join(", ", values)}.");
    }

    /// <summary>The smallest id made at or after the moment in a parameter. Ids know their millisecond.</summary>
    public Guid? IdAt(string name)
    {
        if (Raw(name) is not { } text)
            return null;
        if (!Rfc3339.TryParse(text, out var moment))
            return Refuse<Guid?>(name, "Must be an RFC 3339 time, as in 2026-01-31T09:30:00Z; a + must be written %2B.");
        var milliseconds = Math.Max(0, moment.ToUnixTimeMilliseconds() + (moment.UtcTicks % TimeSpan.TicksPerMillisecond == 0 ? 0 : 1));
        return TypeId.At(
            DateTimeOffset.FromUnixTimeMilliseconds(Math.Min(milliseconds, DateTimeOffset.MaxValue.ToUnixTimeMilliseconds())));
    }

    /// <summary>The rows of the page, and one more to see whether there are more.</summary>
    /// <param name="rows">All rows of the list, in no order.</param>
    /// <param name="id">What the list is in the order of.</param>
    public IQueryable<T> Page<T>(IQueryable<T> rows, Expression<Func<T, Guid>> id) => Order(Beyond(rows, After, id), id).Take(Limit + 1);

    private IQueryable<T> Beyond<T>(IQueryable<T> rows, Guid? place, Expression<Func<T, Guid>> id)
    {
        if (place is not { } after)
            return rows;
        // Taken from here it is a parameter of the query, and not a part of its text.
        Expression<Func<Guid>> bound = () => after;
        var further = NewestFirst ? Expression.LessThan(id.Body, bound.Body) : Expression.GreaterThan(id.Body, bound.Body);
        return rows.Where(Expression.Lambda<Func<T, bool>>(further, id.Parameters));
    }

    private IOrderedQueryable<T> Order<T>(IQueryable<T> rows, Expression<Func<T, Guid>> id) =>
        NewestFirst ? rows.OrderByDescending(id) : rows.OrderBy(id);

    /// <summary>
    /// The same for a filter that no index answers: what an index finds is looked at a chunk at a time, until the page is full, the list
    /// is at its end, or the time is over. A page may be short then, or empty, and have a next one. To be called in one snapshot: what came
    /// or went between its statements would move the places where chunks end.
    /// </summary>
    /// <param name="rows">The rows that an index finds, in no order.</param>
    /// <param name="filter">What is wanted of them.</param>
    /// <param name="id">What the list is in the order of.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <returns>The rows of the page, and the id the next page begins after: null at the end of the list.</returns>
    public async Task<(List<T> Rows, Guid? NextAfter)> ScanAsync<T>(
        IQueryable<T> rows, Expression<Func<T, bool>> filter, Expression<Func<T, Guid>> id, CancellationToken cancellationToken)
    {
        var started = Stopwatch.GetTimestamp();
        var idOf = id.Compile();
        var found = new List<T>();
        var after = After;
        for (var size = FirstChunk; ; size = Math.Min(size * 4, LargestChunk))
        {
            var chunk = Order(Beyond(rows, after, id), id).Take(size);
            found.AddRange(await Order(chunk.Where(filter), id).Take(Limit + 1 - found.Count).ToListAsync(cancellationToken));
            if (found.Count > Limit)
                return (found[..Limit], idOf(found[Limit - 1]));
            // The last one that was looked at, if the chunk was full.
            var last = await Order(Beyond(rows, after, id), id).Select(id).Skip(size - 1).Take(1).ToListAsync(cancellationToken);
            if (last.Count == 0)
                return (found, null);
            after = last[0];
            if (Stopwatch.GetElapsedTime(started) > RequestBudget.Scan)
                return (found, after);
        }
    }

    /// <summary>The ids of the page, and one more, out of all that there are.</summary>
    public List<Guid> Sort(IEnumerable<Guid> ids)
    {
        var beyond = ids.Where(id => After is not { } after || (NewestFirst ? id.CompareTo(after) < 0 : id.CompareTo(after) > 0));
        return [.. (NewestFirst ? beyond.OrderDescending() : beyond.Order()).Take(Limit + 1)];
    }

    /// <summary>The page of two parts of a list. Of a row that is in both that of the second counts.</summary>
    /// <param name="first">Rows of one part, as far as it was looked at.</param>
    /// <param name="second">Rows of the other, and one more than the page has.</param>
    /// <param name="id">What the list is in the order of.</param>
    public (List<T> Rows, Guid? NextAfter) Merge<T>((List<T> Rows, Guid? NextAfter) first, List<T> second, Func<T, Guid> id)
    {
        var all = second.Concat(first.Rows).DistinctBy(id);
        // Beyond the end of the first part nobody knows what is between.
        if (first.NextAfter is { } end)
            all = all.Where(row => NewestFirst ? id(row).CompareTo(end) >= 0 : id(row).CompareTo(end) <= 0);
        var rows = (NewestFirst ? all.OrderByDescending(id) : all.OrderBy(id)).Take(Limit + 1).ToList();
        return rows.Count > Limit ? (rows[..Limit], id(rows[Limit - 1])) : (rows, first.NextAfter);
    }

    /// <summary>The answer of a list that an index has in its order.</summary>
    /// <param name="rows">All rows of the list, in no order.</param>
    /// <param name="id">What the list is in the order of.</param>
    /// <param name="view">What clients see of a row.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public Task<Page<TView>> AnswerAsync<TRow, TView>(
        IQueryable<TRow> rows, Expression<Func<TRow, Guid>> id, Func<TRow, TView> view, CancellationToken cancellationToken) =>
        AnswerAsync(() => ReadAsync(rows, id, cancellationToken), id.Compile(), view, cancellationToken);

    /// <summary>The page of a list that an index has in its order, and the id the next one begins after.</summary>
    /// <param name="rows">All rows of the list, in no order.</param>
    /// <param name="id">What the list is in the order of.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public async Task<(List<T> Rows, Guid? NextAfter)> ReadAsync<T>(
        IQueryable<T> rows, Expression<Func<T, Guid>> id, CancellationToken cancellationToken)
    {
        var found = await Page(rows, id).ToListAsync(cancellationToken);
        return found.Count > Limit ? (found[..Limit], id.Compile()(found[Limit - 1])) : (found, null);
    }

    /// <summary>The answer of a list, read upwards as far as it is complete.</summary>
    /// <param name="page">Reads the page, and the id the next one begins after.</param>
    /// <param name="id">What the list is in the order of.</param>
    /// <param name="view">What clients see of a row.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public async Task<Page<TView>> AnswerAsync<TRow, TView>(
        Func<Task<(List<TRow> Rows, Guid? NextAfter)>> page, Func<TRow, Guid> id, Func<TRow, TView> view,
        CancellationToken cancellationToken)
    {
        var (rows, nextAfter) = NewestFirst ? await page()
            : await Upwards.ReadAsync(_context, () => Upwards.ReadCompleteAsync(_context, cancellationToken), page, id);
        return Answer([.. rows.Select(view)], nextAfter);
    }

    /// <summary>The page's body, with the link to the next in the headers.</summary>
    /// <param name="items">The items of the page.</param>
    /// <param name="nextAfter">The id the next page begins after; null at the end of the list.</param>
    public Page<T> Answer<T>(IReadOnlyList<T> items, Guid? nextAfter)
    {
        if (nextAfter is null)
            return new Page<T>(items, null);
        var cursor = Cursor.Write(Filters, nextAfter.Value);
        var query = new QueryBuilder(_context.Request.Query.Where(p => p.Key != "cursor")
            .Select(p => new KeyValuePair<string, string>(p.Key, p.Value.ToString()))) { { "cursor", cursor } };
        _context.Response.Headers.Link = $"<{_context.Request.Path}{query}>; rel=\"next\"";
        return new Page<T>(items, cursor);
    }

    // What comes twice has been refused as that.
    private string? Raw(string name) => _context.Request.Query.TryGetValue(name, out var values) && values is [{ } text] ? text : null;

    private void Refuse(string name, string detail) => _errors.Add("?" + Fields.Shorten(name), detail);

    private T? Refuse<T>(string name, string detail)
    {
        Refuse(name, detail);
        return default;
    }
}

/// <summary>A page of a list.</summary>
/// <param name="Items">In the order asked for.</param>
/// <param name="NextCursor">Where the next page begins; null at the end.</param>
internal sealed record Page<T>(IReadOnlyList<T> Items, string? NextCursor);

/// <summary>The parameters that lists share.</summary>
internal static class ListParameters
{
    public static readonly Parameter Limit = Parameter.Number("limit", "Items on a page.", 1, 200, ifLeftOut: 50);

    public static readonly Parameter Cursor = Parameter.Text(
        "cursor", "`nextCursor` of the page before. It belongs to the same filters.", "eyJmIjoiQUJDIn0", 1_024);

    public static readonly Parameter Order = Parameter.OneOf("order",
        "`desc`, the newest first, unless `asc`. Upwards a page ends where nothing older can still come, and one that would end less than "
        + "a second ago waits until it doesn't, or is 503 `event_not_yet_visible`: whoever follows `nextCursor` misses nothing.",
        "desc", ["desc", "asc"]);

    /// <summary>What the description of a list says that has filters without an index.</summary>
    public const string ShortPages =
        "Where a filter finds little in a long history, a page may have fewer items than `limit`, even none, and a "
        + "`nextCursor`: the list goes on there.";

    public static readonly Parameter CreatedAfter = Parameter.Moment(
        "createdAfter", "Made at this moment or later (RFC 3339).", "2026-01-31T00:00:00Z");

    public static readonly Parameter CreatedBefore = Parameter.Moment(
        "createdBefore", "Made before this moment (RFC 3339).", "2026-02-01T00:00:00Z");
}
