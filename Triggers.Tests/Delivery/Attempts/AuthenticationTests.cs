using System.Text;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Tests.Support;
using static Triggers.Tests.Support.Steps;

namespace Triggers.Tests.Delivery.Attempts;

/// <summary>What a receiver knows its caller by, seen from raw sockets of receivers and of those who give tokens.</summary>
public sealed class AuthenticationTests
{
    private const string Secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    private static readonly Step[] Accepts = [Read, Send("HTTP/1.1 204 No Content\r\n\r\n"), Hang];

    [Fact]
    public async Task Basic_and_bearer_are_sent_and_take_the_place_of_a_header()
    {
        await using var receiver = new RawReceiver([[Read, Ok, Read, Ok, Hang]]);
        await using var sender = new RealSender();
        var url = $"http://127.0.0.1:{receiver.Port}/";

        await sender.SendAsync(url, headers: new() { ["Authorization"] = "of a header" }, cancellationToken: Cancellation,
            authentication: new() { Type = AuthenticationType.Basic, Username = "us\u00e9r", Password = "p:w" });
        await sender.SendAsync(url, cancellationToken: Cancellation,
            authentication: new() { Type = AuthenticationType.Bearer, Token = "abc.def" });

        Assert.Equal(
            [$"Basic {Convert.ToBase64String(Encoding.UTF8.GetBytes("us\u00e9r:p:w"))}", "Bearer abc.def"],
            receiver.Requests.Select(Authorization));
    }

    [Fact]
    public async Task AToken_is_asked_for_once_and_used_until_it_expires()
    {
        await using var server = new RawReceiver([[Read, Gives("first", 3_600), Hang], [Read, Gives("second", 3_600), Hang]]);
        await using var receiver = new RawReceiver([[Read, Ok, Read, Ok, Hang]]);
        await using var sender = new RealSender();

        for (var i = 0; i < 2; i++)
            Assert.Equal(AttemptOutcome.Delivered, (await SendAsync(sender, receiver, server)).Outcome);

        Assert.Equal(["Bearer first", "Bearer first"], receiver.Requests.Select(Authorization));
        var asked = Assert.Single(server.Requests);
        Assert.StartsWith("POST /token HTTP/1.1\r\n", asked, StringComparison.Ordinal);
        // RFC 6749, 2.3.1: name and secret are encoded before they are joined.
        Assert.Equal($"Basic {Convert.ToBase64String("me%3A:s%20cret"u8)}", Authorization(asked));
    }

    [Fact]
    public async Task AToken_that_has_no_life_left_is_asked_for_again()
    {
        await using var server = new RawReceiver([[Read, Gives("first", 1), Read, Gives("second", 3_600), Hang]]);
        await using var receiver = new RawReceiver([[Read, Ok, Read, Ok, Hang]]);
        await using var sender = new RealSender();

        for (var i = 0; i < 2; i++)
            await SendAsync(sender, receiver, server);

        Assert.Equal(["Bearer first", "Bearer second"], receiver.Requests.Select(Authorization));
    }

    [Theory]
    [InlineData("\"3600\"", 1)]
    [InlineData("\"1\"", 2)]
    [InlineData("\"soon\"", 1)]
    [InlineData("\"NaN\"", 1)]
    [InlineData("null", 1)]
    public async Task The_life_of_a_token_may_be_said_as_text_or_not_at_all(string life, int asked)
    {
        await using var server = new RawReceiver([[Read, Gives("first", life), Read, Gives("second", "3600"), Hang]]);
        await using var receiver = new RawReceiver([[Read, Ok, Read, Ok, Hang]]);
        await using var sender = new RealSender();

        for (var i = 0; i < 2; i++)
            Assert.Equal(AttemptOutcome.Delivered, (await SendAsync(sender, receiver, server)).Outcome);

        Assert.Equal(asked, server.Requests.Count);
    }

    [Fact]
    public async Task AToken_that_is_refused_is_replaced_once_in_the_same_attempt()
    {
        await using var server = new RawReceiver([[Read, Gives("revoked", 3_600), Read, Gives("fresh", 3_600), Hang]]);
        await using var receiver = new RawReceiver([[Read, Unauthorized, Read, Ok, Hang]]);
        await using var sender = new RealSender();

        var result = await SendAsync(sender, receiver, server);

        Assert.Equal((AttemptOutcome.Delivered, 200), (result.Outcome, result.StatusCode));
        Assert.Equal(["Bearer revoked", "Bearer fresh"], receiver.Requests.Select(Authorization));
        // Signed anew, and by the same id.
        Assert.Single(receiver.Requests.Select(r => Header(r, "webhook-id")).Distinct());
    }

    [Fact]
    public async Task AReceiver_that_refuses_every_token_has_answered_401()
    {
        await using var server = new RawReceiver([[Read, Gives("one", 3_600), Read, Gives("two", 3_600), Hang]]);
        await using var receiver = new RawReceiver([[Read, Unauthorized, Read, Unauthorized, Hang]]);
        await using var sender = new RealSender();

        var result = await SendAsync(sender, receiver, server);

        Assert.Equal((AttemptOutcome.HttpStatus, 401, 2), (result.Outcome, result.StatusCode, receiver.Requests.Count));
    }

    [Theory]
    [InlineData("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "the token server answered 401")]
    [InlineData("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "without a token")]
    [InlineData("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\noops", "without a token")]
    [InlineData("HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"access_token\":\"a\\nb\"}", "without a token")]
    [InlineData("HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", "the token server answered 302")]
    public async Task Without_a_token_nothing_is_sent_and_the_attempt_says_why(string answer, string said)
    {
        await using var server = new RawReceiver([[Read, Send(answer), Hang]]);
        await using var receiver = new RawReceiver([Accepts]);
        await using var sender = new RealSender();

        var result = await SendAsync(sender, receiver, server);

        Assert.Equal((AttemptOutcome.TokenFailure, 0), (result.Outcome, receiver.Connections));
        Assert.Contains(said, result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("s cret", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task AToken_server_is_guarded_and_has_the_time_of_the_attempt()
    {
        await using var server = new RawReceiver([[Read, Hang]]);
        await using var receiver = new RawReceiver([Accepts]);
        await using var guarded = new RealSender(options => options.AllowedNetworks = "");
        await using var hasty = new RealSender(options => options.AttemptTimeout = options.ConnectTimeout = TimeSpan.FromSeconds(0.5));

        var refused = await SendAsync(guarded, receiver, server);
        var late = await SendAsync(hasty, receiver, server);

        Assert.Equal(AttemptOutcome.TokenFailure, refused.Outcome);
        Assert.Contains("not one that webhooks may be sent to", refused.Error, StringComparison.Ordinal);
        Assert.Equal((AttemptOutcome.Timeout, 0), (late.Outcome, receiver.Connections));
    }

    [Fact]
    public async Task Secrets_and_private_keys_sign_side_by_side()
    {
        var key = SigningKey.New();
        Assert.True(SigningKey.TryGetPublic(key, out var publicKey));
        await using var receiver = new RawReceiver([Accepts]);
        await using var sender = new RealSender();

        await sender.SendAsync(
            $"http://127.0.0.1:{receiver.Port}/", "{\"a\":1}", secret: $"{Secret} {key}", cancellationToken: Cancellation);

        var head = receiver.Requests.Single();
        var signatures = Header(head, "webhook-signature").Split(' ');
        Assert.Equal(["v1", "v1a"], signatures.Select(s => s.Split(',')[0]));
        var message = Encoding.UTF8.GetBytes(
            $"{Header(head, "webhook-id")}.{Header(head, "webhook-timestamp")}.{receiver.Bodies.Single()}");
        Assert.True(SigningKey.Verify(publicKey, message, Convert.FromBase64String(signatures[1]["v1a,".Length..])));
        message[^1] ^= 1;
        Assert.False(SigningKey.Verify(publicKey, message, Convert.FromBase64String(signatures[1]["v1a,".Length..])));
    }

    [Fact]
    public void Signatures_are_those_of_the_RFCs_test_vector()
    {
        // RFC 8032, 7.1, test 2: the key, and what it makes of the byte 72.
        var seed = Convert.FromHexString("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        var expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            + "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        var publicKey = Convert.FromHexString("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");

        var key = SigningKey.Prefix + Convert.ToBase64String(seed);
        Assert.Equal(expected, Convert.ToHexStringLower(SigningKey.Sign(key, [0x72])));
        Assert.True(SigningKey.TryGetPublic(key, out var derived));
        Assert.Equal(SigningKey.PublicPrefix + Convert.ToBase64String(publicKey), derived);
        Assert.True(SigningKey.TryGetPublic(SigningKey.Prefix + Convert.ToBase64String([.. seed, .. publicKey]), out _));
        Assert.False(SigningKey.TryGetPublic(SigningKey.Prefix + Convert.ToBase64String([.. seed, .. seed]), out _));
    }

    private static readonly Step Ok = Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    private static readonly Step Unauthorized = Send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static Step Gives(string token, int seconds) => Gives(token, $"{seconds}");

    private static Step Gives(string token, string life)
    {
        var body = $$"""{"access_token":"{{token}}","token_type":"Bearer","expires_in":{{life}}}""";
        return Send($"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {body.Length}\r\n\r\n{body}");
    }

    private static Task<Triggers.Delivery.Attempts.AttemptResult> SendAsync(RealSender sender, RawReceiver receiver, RawReceiver server) =>
        sender.SendAsync($"http://127.0.0.1:{receiver.Port}/", cancellationToken: Cancellation, authentication: new()
        {
            Type = AuthenticationType.ClientCredentials,
            TokenUrl = $"http://127.0.0.1:{server.Port}/token",
            ClientId = "me:",
            ClientSecret = "s cret",
            Scope = "hooks",
        });

    private static string Authorization(string head) => Header(head, "Authorization");

    private static string Header(string head, string name) =>
        head.Split("\r\n").Single(line => line.StartsWith(name + ": ", StringComparison.OrdinalIgnoreCase))[(name.Length + 2)..];
}
