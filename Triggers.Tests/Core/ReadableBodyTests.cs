using System.IO.Compression;
using System.Text;
using CsCheck;
using Triggers.Core;

namespace Triggers.Tests.Core;

public sealed class ReadableBodyTests
{
    private const string Text = "Überlastet: 12 € für 日本語";

    [Theory]
    [InlineData("text/plain; charset=utf-8", "utf-8")]
    [InlineData("text/plain; charset=\"UTF-8\"", "utf-8")]
    [InlineData("text/html;charset=iso-8859-15", "iso-8859-15")]
    [InlineData("text/html; charset=windows-1252", "windows-1252")]
    [InlineData("text/html; charset=Shift_JIS", "shift_jis")]
    [InlineData("application/json; charset=gb18030", "gb18030")]
    [InlineData("text/plain; charset=utf-16le", "utf-16")]
    [InlineData("text/plain; charset=utf-16be", "utf-16be")]
    public void Text_is_decoded_by_its_charset(string contentType, string encoding)
    {
        var coder = CodePagesEncodingProvider.Instance.GetEncoding(encoding) ?? Encoding.GetEncoding(encoding);
        var bytes = coder.GetBytes(Text);

        Assert.Equal(new ReadableBody(coder.GetString(bytes), BodyEncoding.Text), ReadableBody.Of(bytes, [new("CONTENT-TYPE", contentType)]));
    }

    [Theory]
    [InlineData(null)]
    [InlineData("application/octet-stream")]
    [InlineData(";;")]
    [InlineData("text/plain; charset=klingon")]
    public void Without_a_charset_that_is_known_it_is_UTF8_where_it_can_be(string? contentType)
    {
        Assert.Equal(new ReadableBody(Text, BodyEncoding.Text), ReadableBody.Of(Encoding.UTF8.GetBytes(Text), contentType is null ? null : [new("content-type", contentType)]));
        Assert.Equal(new ReadableBody("é", BodyEncoding.Text), ReadableBody.Of([0xef, 0xbb, 0xbf, 0xc3, 0xa9], null));
        Assert.Equal(new ReadableBody("aé", BodyEncoding.Text), ReadableBody.Of([0xff, 0xfe, 0x61, 0, 0xe9, 0], null));
    }

    [Fact]
    public void Text_that_is_not_UTF8_and_says_so_of_itself_is_still_text() =>
        Assert.Equal(new ReadableBody("für 1 €", BodyEncoding.Text), ReadableBody.Of([0x66, 0xfc, 0x72, 0x20, 0x31, 0x20, 0x80], [new("content-type", "text/html")]));

    [Fact]
    public void What_is_no_text_is_base64()
    {
        byte[] png = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d];

        Assert.Equal(new ReadableBody(Convert.ToBase64String(png), BodyEncoding.Base64), ReadableBody.Of(png, [new("content-type", "image/png")]));
        Assert.Equal(BodyEncoding.Base64, ReadableBody.Of([0, 1, 2, 3], null).Encoding);
        Assert.Equal(BodyEncoding.Base64, ReadableBody.Of([0, 1, 2, 3], [new("content-type", "text/plain")]).Encoding);
        Assert.Equal(BodyEncoding.Base64, ReadableBody.Of([1, 2, 3], [new("content-encoding", "zstd")]).Encoding);
        Assert.Equal(BodyEncoding.Base64, ReadableBody.Of([1, 2, 3], [new("content-encoding", "gzip")]).Encoding);
        Assert.Equal(new ReadableBody("", BodyEncoding.Text), ReadableBody.Of([], [new("content-encoding", "gzip"), new("content-type", "image/png")]));
    }

    [Theory]
    [InlineData("gzip")]
    [InlineData("X-Gzip")]
    [InlineData("deflate")]
    [InlineData("deflate, without a frame")]
    [InlineData("br")]
    [InlineData("identity")]
    [InlineData("gzip, br")]
    public void Compression_is_undone(string contentEncoding)
    {
        var body = Encoding.UTF8.GetBytes(Text);
        foreach (var coding in contentEncoding.Split(", "))
            body = coding == "without a frame" ? Compress("bare", Encoding.UTF8.GetBytes(Text)) : Compress(coding, body);

        Assert.Equal(new ReadableBody(Text, BodyEncoding.Text), ReadableBody.Of(body, [new("Content-Encoding", contentEncoding.Split(", without")[0])]));
    }

    [Fact]
    public void Compression_that_was_cut_off_gives_what_there_is_and_no_bomb_more_than_the_cap()
    {
        var words = string.Join(' ', Enumerable.Range(0, 5_000));
        var cut = Compress("gzip", Encoding.UTF8.GetBytes(words))[..4096];
        var bomb = Compress("gzip", new byte[1_000_000].Select(_ => (byte)'a').ToArray());

        Assert.StartsWith(ReadableBody.Of(cut, [new("content-encoding", "gzip")]).Text, words, StringComparison.Ordinal);
        Assert.InRange(ReadableBody.Of(cut, [new("content-encoding", "gzip")]).Text.Length, 1_000, ReadableBody.MaxBytes);
        Assert.Equal(new ReadableBody(new string('a', ReadableBody.MaxBytes), BodyEncoding.Text), ReadableBody.Of(bomb, [new("content-encoding", "gzip")]));
    }

    [Fact]
    public void ACharacter_that_the_cap_cut_in_two_is_left_out() =>
        Assert.Equal(new ReadableBody("12 ", BodyEncoding.Text), ReadableBody.Of(Encoding.UTF8.GetBytes("12 €")[..^1], null));

    [Fact]
    public void Any_bytes_under_any_headers_can_be_shown() =>
        Gen.Select(Gen.Byte.Array[0, 300], OneOf("", "gzip", "br", "deflate", "br, gzip"), OneOf("", "text/plain", "text/x; charset=utf-7", "a/b;charset=utf-32", "x")).Sample((body, coding, type) =>
        {
            var shown = ReadableBody.Of(body, [new("content-encoding", coding), new("content-type", type)]);
            if (shown.Encoding == BodyEncoding.Base64)
                Assert.Equal(body, Convert.FromBase64String(shown.Text));
            else
                Assert.DoesNotContain('\0', shown.Text);
        });

    private static Gen<string> OneOf(params string[] texts) => Gen.Int[0, texts.Length - 1].Select(i => texts[i]);

    private static byte[] Compress(string coding, byte[] body)
    {
        using var to = new MemoryStream();
        using (Stream stream = coding.ToLowerInvariant() switch
        {
            "gzip" or "x-gzip" => new GZipStream(to, CompressionMode.Compress),
            "deflate" => new ZLibStream(to, CompressionMode.Compress),
            "bare" => new DeflateStream(to, CompressionMode.Compress),
            "br" => new BrotliStream(to, CompressionMode.Compress),
            _ => to,
        })
            stream.Write(body);
        return to.ToArray();
    }
}
