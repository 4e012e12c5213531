using Npgsql;
using NpgsqlTypes;

namespace Triggers.Core.State;

/// <summary>Rows as parameters: a column is an array, and <c>unnest</c> makes rows of them again.</summary>
internal static class Columns
{
    public static void AddColumn<TRow, TValue>(
        this NpgsqlParameterCollection parameters, string name, NpgsqlDbType type, IReadOnlyList<TRow> rows, Func<TRow, TValue> value)
    {
        var values = new TValue[rows.Count];
        for (var i = 0; i < values.Length; i++)
            values[i] = value(rows[i]);
        parameters.Add(new NpgsqlParameter(name, type | NpgsqlDbType.Array) { Value = values });
    }

    public static void AddColumn<T>(this NpgsqlParameterCollection parameters, string name, NpgsqlDbType type, IReadOnlyList<T> values) =>
        parameters.AddColumn(name, type, values, value => value);
}
