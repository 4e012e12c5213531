using System.Text;
using Triggers.Receiver;

namespace Triggers.Tests.Receiver;

public sealed class WebhookSignatureTests
{
    // The example of the Standard Webhooks libraries' own tests.
    private const string Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    private const string Id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    private const string Timestamp = "1614265330";
    private const string Signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    private static readonly byte[] s_body = Encoding.UTF8.GetBytes("""{"test": 2432232314}""");
    private static readonly DateTimeOffset s_now = DateTimeOffset.FromUnixTimeSeconds(1614265330);

    [Fact]
    public void The_published_example_is_valid() => Assert.True(IsValid());

    [Fact]
    public void One_good_signature_among_others_is_enough() => Assert.True(IsValid(signatures: "v1,AAAA v2,BBBB " + Signature));

    [Theory]
    [InlineData(null, Timestamp, Signature)]
    [InlineData("msg_other", Timestamp, Signature)]
    [InlineData(Id, "1614265331", Signature)]
    [InlineData(Id, "soon", Signature)]
    [InlineData(Id, null, Signature)]
    [InlineData(Id, "9223372036854775807", Signature)]
    [InlineData(Id, Timestamp, null)]
    [InlineData(Id, Timestamp, "")]
    [InlineData(Id, Timestamp, "v1,")]
    [InlineData(Id, Timestamp, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")]
    public void Anything_else_is_not(string? id, string? timestamp, string? signatures) =>
        Assert.False(IsValid(id, timestamp, signatures));

    [Fact]
    public void Another_body_is_not() => Assert.False(IsValid(body: [.. s_body, (byte)' ']));

    [Theory]
    [InlineData(300, true)]
    [InlineData(301, false)]
    [InlineData(-300, true)]
    [InlineData(-301, false)]
    public void Five_minutes_are_tolerated(int seconds, bool valid) => Assert.Equal(valid, IsValid(now: s_now.AddSeconds(seconds)));

    private static bool IsValid(
        string? id = Id, string? timestamp = Timestamp, string? signatures = Signature, byte[]? body = null, DateTimeOffset? now = null)
    {
        Assert.True(WebhookSignature.TryParseSecret(Secret, out var secret));
        return WebhookSignature.IsValid(secret, id, timestamp, signatures, body ?? s_body, now ?? s_now);
    }
}
