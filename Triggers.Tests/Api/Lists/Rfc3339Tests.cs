using CsCheck;
using Triggers.Api.Requests;

namespace Triggers.Tests.Api.Lists;

public sealed class Rfc3339Tests
{
    [Theory]
    [InlineData("2026-01-31T09:30:00Z", "2026-01-31T09:30:00.0000000")]
    [InlineData("2026-01-31t09:30:00z", "2026-01-31T09:30:00.0000000")]
    [InlineData("2026-01-31T09:30:00.1Z", "2026-01-31T09:30:00.1000000")]
    [InlineData("2026-01-31T09:30:00.123456789Z", "2026-01-31T09:30:00.1234560")]
    [InlineData("2026-01-31T10:30:00+01:00", "2026-01-31T09:30:00.0000000")]
    [InlineData("2026-01-31T00:30:00-09:00", "2026-01-31T09:30:00.0000000")]
    [InlineData("2026-02-01T09:15:00+23:45", "2026-01-31T09:30:00.0000000")]
    [InlineData("2026-01-31T09:30:00-00:00", "2026-01-31T09:30:00.0000000")]
    [InlineData("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.0000000")]
    [InlineData("2016-12-31T15:59:60.5-08:00", "2017-01-01T00:00:00.5000000")]
    public void Times_are_read_to_the_microsecond(string text, string utc)
    {
        Assert.True(Rfc3339.TryParse(text, out var moment));
        Assert.Equal(utc, moment.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.fffffff"));
    }

    [Theory]
    [InlineData("")]
    [InlineData("2026-01-31")]
    [InlineData("2026-01-31T09:30:00")]
    [InlineData("2026-01-31 09:30:00Z")]
    [InlineData("2026-02-30T09:30:00Z")]
    [InlineData("2026-01-31T24:00:00Z")]
    [InlineData("2026-01-31T09:30:00.Z")]
    [InlineData("2026-01-31T09:30:00+25:00")]
    [InlineData("0001-01-01T00:00:00+01:00")]
    [InlineData("2026-01-31T09:30:00Z\n")]
    [InlineData("٢٠٢٦-01-31T09:30:00Z")]
    public void Anything_else_is_no_time(string text) => Assert.False(Rfc3339.TryParse(text, out _));

    [Fact]
    public void What_we_write_we_read() =>
        Gen.DateTimeOffset.Sample(moment =>
        {
            var text = System.Text.Json.JsonSerializer.Deserialize<string>(
                System.Text.Json.JsonSerializer.Serialize(moment, Triggers.Api.Http.Json.Options))!;
            return Rfc3339.TryParse(text, out var read) && Math.Abs((read - moment).Ticks) < TimeSpan.TicksPerMicrosecond;
        });
}
