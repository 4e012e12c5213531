using CsCheck;
using Triggers.Api.Lists;

namespace Triggers.Tests.Api.Lists;

public sealed class CursorTests
{
    [Fact]
    public void A_cursor_gives_back_the_id_it_was_made_of() =>
        Gen.Select(Gen.String, Gen.Guid).Sample((filters, id) =>
        {
            var text = Cursor.Write(filters, id);
            return Cursor.TryRead(text, filters, out var read) && read == id
                && text.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_');
        });

    [Fact]
    public void A_cursor_is_none_of_other_filters() =>
        Gen.Select(Gen.String, Gen.String, Gen.Guid).Where(t => t.Item1 != t.Item2)
            .Sample((filters, others, id) => !Cursor.TryRead(Cursor.Write(filters, id), others, out _));

    [Fact]
    public void Anything_else_is_no_cursor_and_no_error() =>
        Gen.OneOf(Gen.String, Gen.String.AlphaNumeric, Gen.Byte.Array.Select(bytes => System.Buffers.Text.Base64Url.EncodeToString(bytes)))
            .Sample(text => !Cursor.TryRead(text, "filters", out _));
}
