using Triggers.Core.Tables;
using Triggers.Tests.Support;
using static Triggers.Core.Tables.AttemptOutcome;
using static Triggers.Tests.Support.Steps;

namespace Triggers.Tests.Delivery.Attempts;

/// <summary>A receiver that keeps to no rules, and what is made of it.</summary>
/// <param name="Receiver">What it does, in words.</param>
/// <param name="Steps">What it does, on its only connection or on each.</param>
/// <param name="Outcome">That of the attempt.</param>
/// <param name="Status">The status that is recorded.</param>
/// <param name="Then">What follows, as <see cref="MisbehavingReceiversTests"/> puts it.</param>
/// <param name="Cause">A part of the error that is recorded; null when there is none.</param>
internal sealed record MisbehavingReceiver(string Receiver, Step[] Steps, AttemptOutcome Outcome, int? Status, string Then, string? Cause)
{
    /// <summary>The second connection, where it is another one.</summary>
    public Step[]? OnSecondConnection { get; init; }

    /// <summary>What is recorded of the body; null when that is not the point.</summary>
    public string? Body { get; init; }

    /// <summary>Some of the headers that are recorded.</summary>
    public (string Name, string Value)[] Headers { get; init; } = [];

    /// <summary>Whether it is the attempt's time that ends it.</summary>
    public bool TimesOut { get; init; }

    /// <summary>Whether the address is https.</summary>
    public bool Secure { get; init; }

    /// <summary>How much is sent.</summary>
    public int DataBytes { get; init; } = 100;

    /// <summary>How many webhooks are sent, one after the other; the last is judged.</summary>
    public int Webhooks { get; init; } = 1;

    /// <summary>How many connections are made in all.</summary>
    public int Connections { get; init; } = 1;

    /// <summary>How many kept-alive connections turn out to be closed.</summary>
    public int Stale { get; init; }
}

/// <summary>The table. A row for each way of going wrong, from the first packet to the last.</summary>
internal static class MisbehavingReceivers
{
    private const AttemptOutcome TimedOut = AttemptOutcome.Timeout;
    private const string Succeeds = "succeeded";
    private const string Again = "8 attempts, next in 10 s";
    private const string Rejected = "3 attempts, next in 10 s";
    private const string Gone = "cancelled, and the subscription disabled";
    private const int Large = 1_000_000;

    private const string ClosedBefore = "the receiver closed the connection before answering";
    private const string ResetBefore = "the receiver reset the connection before answering";
    private const string ClosedWithin = "the receiver closed the connection in the middle of its answer";
    private const string ResetWithin = "the receiver reset the connection in the middle of its answer";
    private const string NotHttp = "the answer is not valid HTTP";
    private const string NoAnswer = "no answer within";
    private const string NoEnd = "the answer did not end within";
    private const string NoConnection = "no connection within";

    private static readonly Step Ok = Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");

    private static readonly Step[] Accepts = [Read, Send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"), Hang];

    public static readonly MisbehavingReceiver[] All =
    [
        // Before the answer.
        new("closes as soon as it is connected to", [Close], ConnectionFailed, null, Again, "the connection before"),
        new("resets as soon as it is connected to", [Reset], ConnectionFailed, null, Again, "the connection before"),
        new("neither reads nor answers", [Hang], TimedOut, null, Again, NoAnswer) { TimesOut = true },
        new("closes with the request unread", [ReadHeaders, Close],
            ConnectionFailed, null, Again, "the connection before answering") { DataBytes = Large },
        new("resets within the request", [ReadHeaders, Reset],
            ConnectionFailed, null, Again, "the connection before answering") { DataBytes = Large },
        new("closes instead of answering", [Read, Close], ConnectionFailed, null, Again, ClosedBefore),
        new("resets instead of answering", [Read, Reset], ConnectionFailed, null, Again, ResetBefore),
        new("never answers", [Read, Hang], TimedOut, null, Again, NoAnswer) { TimesOut = true },
        new("closes its half instead of answering", [Read, HalfClose], ConnectionFailed, null, Again, ClosedBefore),
        new("answers 413 with the request unread, and closes",
            [ReadHeaders, Send("HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large"), Close],
            HttpStatus, 413, Rejected, null) { DataBytes = 8 * Large, Body = "too large" },
        new("answers 503 before the request", [Send("HTTP/1.1 503 Full\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"), Close],
            HttpStatus, 503, "8 attempts, next in 60 s", null) { DataBytes = 8 * Large, Headers = [("Retry-After", "60")] },

        // The status line.
        new("sends an empty line first", [Read, Send("\r\n"), Ok, Close], InvalidResponse, null, Again, NotHttp),
        new("speaks SSH", [Read, Send("SSH-2.0-OpenSSH_9.6\r\n"), Hang], InvalidResponse, null, Again, NotHttp),
        new("answers in HTML without HTTP", [Read, Send("<html><body>It works</body></html>\r\n"), Close],
            InvalidResponse, null, Again, NotHttp),
        new("sends random bytes", [Read, Send("\u0015\u0003\u0001\u00ff\u0000\u00fe\n\n\n\n"), Close],
            InvalidResponse, null, Again, NotHttp),
        new("closes within the status line", [Read, Send("HTTP/1.1 20"), Close], ConnectionFailed, null, Again, ClosedWithin),
        new("resets within the status line", [Read, Send("HTTP/1.1 20"), Reset], ConnectionFailed, null, Again, ResetWithin),
        new("hangs within the status line", [Read, Send("HTTP/1.1 20"), Hang], TimedOut, null, Again, NoEnd) { TimesOut = true },
        new("a status of no digits", [Read, Send("HTTP/1.1 abc OK\r\n\r\n"), Close], InvalidResponse, null, Again, NotHttp),
        new("a status of four digits", [Read, Send("HTTP/1.1 2000 OK\r\n\r\n"), Close], InvalidResponse, null, Again, NotHttp),
        new("a status of two digits", [Read, Send("HTTP/1.1 20 OK\r\n\r\n"), Close], InvalidResponse, null, Again, NotHttp),
        new("status 000", [Read, Send("HTTP/1.1 000 Nothing\r\nContent-Length: 0\r\n\r\n"), Close], HttpStatus, 0, Again, null),
        new("status 099", [Read, Send("HTTP/1.1 099 Less\r\nContent-Length: 0\r\n\r\n"), Close], HttpStatus, 99, Again, null),
        new("status 600", [Read, Send("HTTP/1.1 600 More\r\nContent-Length: 0\r\n\r\n"), Close], HttpStatus, 600, Again, null),
        new("status 999", [Read, Send("HTTP/1.1 999 Denied\r\nContent-Length: 0\r\n\r\n"), Close], HttpStatus, 999, Again, null),
        new("HTTP/2.0 in the status line", [Read, Send("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), Close],
            InvalidResponse, null, Again, NotHttp),
        new("HTTP/1.0", [Read, Send("HTTP/1.0 200 OK\r\n\r\nok"), Close], Delivered, 200, Succeeds, null) { Body = "ok" },
        new("no reason phrase", [Read, Send("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), Hang], Delivered, 200, Succeeds, null),
        new("NUL in the reason phrase", [Read, Send("HTTP/1.1 503 a\0b\r\nContent-Length: 0\r\n\r\n"), Close],
            InvalidResponse, null, Again, NotHttp),
        new("CR in the reason phrase", [Read, Send("HTTP/1.1 503 a\rb\r\nContent-Length: 0\r\n\r\n"), Close],
            InvalidResponse, null, Again, NotHttp),
        new("a reason phrase beyond ASCII", [Read, Send("HTTP/1.1 503 \u00fcberlastet\r\nContent-Length: 0\r\n\r\n"), Close],
            HttpStatus, 503, Again, null),
        new("a reason phrase of 64 KB", [Read, Send($"HTTP/1.1 503 {new string('a', 65_536)}\r\n\r\n"), Close],
            InvalidResponse, null, Again, NotHttp),
        new("a status line without end", [Read, Flood("HTTP/1.1 200 ")], InvalidResponse, null, Again, NotHttp),
        new("drips its answer, in time", [Read, Drip("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")],
            Delivered, 200, Succeeds, null) { Body = "ok" },
        new("drips its status line, too slowly", [Read, Drip("HTTP/1.1 200 OK\r\n\r\n", 200)],
            TimedOut, null, Again, NoEnd) { TimesOut = true },
        new("100 Continue unasked, then 200", [Read, Send("HTTP/1.1 100 Continue\r\n\r\n"), Ok],
            Delivered, 200, Succeeds, null) { Body = "ok" },
        new("103 Early Hints, then 200", [Read, Send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), Ok],
            Delivered, 200, Succeeds, null) { Body = "ok" },
        new("100 Continue for ever", [Read, Flood("HTTP/1.1 100 Continue\r\n\r\n")], InvalidResponse, null, Again, NotHttp),
        new("100 Continue and nothing more", [Read, Send("HTTP/1.1 100 Continue\r\n\r\n"), Close],
            ConnectionFailed, null, Again, ClosedWithin),
        new("switches protocols",
            [Read, Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), Hang],
            InvalidResponse, 101, Again, "switched to another protocol"),
        new("redirects inwards",
            [Read, Send("HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"), Close],
            HttpStatus, 302, Rejected, null) { Headers = [("Location", "http://169.254.169.254/")] },

        // The headers.
        new("a header without colon", [Read, Send("HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 0\r\n\r\n"), Close],
            InvalidResponse, null, Again, NotHttp),
        new("a header without name", [Read, Send("HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n"), Close],
            InvalidResponse, null, Again, NotHttp),
        new("a space in a header's name", [Read, Send("HTTP/1.1 200 OK\r\nA B: x\r\nContent-Length: 0\r\n\r\n"), Close],
            InvalidResponse, null, Again, NotHttp),
        new("NUL in a header", [Read, Send("HTTP/1.1 503 No\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n"), Close],
            HttpStatus, 503, Again, null) { Headers = [("X-A", "a b")] },
        new("a folded header", [Read, Send("HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 0\r\n\r\n"), Close],
            Delivered, 200, Succeeds, null) { Headers = [("X-A", "a   b")] },
        new("a header beyond ASCII", [Read, Send("HTTP/1.1 200 OK\r\nX-A: \u00fc\r\nContent-Length: 0\r\n\r\n"), Close],
            Delivered, 200, Succeeds, null) { Headers = [("X-A", "\u00fc")] },
        new("headers that mean something else",
            [Read, Send("HTTP/1.1 500 No\r\nDate: yesterday\r\nContent-Type: ;;\r\nAge: -\r\nContent-Length: 0\r\n\r\n"), Close],
            HttpStatus, 500, Again, null) { Headers = [("Date", "yesterday"), ("Content-Type", ";;"), ("Age", "-")] },
        new("lines that end in LF", [Read, Send("HTTP/1.1 200 OK\nX-A: a\nContent-Length: 2\n\nok"), Close],
            Delivered, 200, Succeeds, null) { Body = "ok", Headers = [("X-A", "a")] },
        new("a header of 64 KB", [Read, Send($"HTTP/1.1 200 OK\r\nX-A: {new string('a', 65_536)}\r\n\r\n"), Close],
            InvalidResponse, null, Again, NotHttp),
        new("headers without end", [Read, Send("HTTP/1.1 200 OK\r\n"), Flood("X-A: a\r\n")], InvalidResponse, null, Again, NotHttp),
        new("closes within the headers", [Read, Send("HTTP/1.1 503 No\r\nX-A: a\r\n"), Close],
            ConnectionFailed, null, Again, ClosedWithin),
        new("resets within the headers", [Read, Send("HTTP/1.1 503 No\r\nX-A: a\r\n"), Reset], ConnectionFailed, null, Again, ResetWithin),
        new("hangs within the headers", [Read, Send("HTTP/1.1 200 OK\r\nX-A: a\r\n"), Hang],
            TimedOut, null, Again, NoEnd) { TimesOut = true },
        new("a length of no digits", [Read, Send("HTTP/1.1 503 No\r\nContent-Length: abc\r\n\r\n"), Close], HttpStatus, 503, Again, null),
        new("a negative length", [Read, Send("HTTP/1.1 503 No\r\nContent-Length: -1\r\n\r\n"), Close], HttpStatus, 503, Again, null),
        new("two lengths", [Read, Send("HTTP/1.1 503 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), Close],
            HttpStatus, 503, Again, null),
        new("a length of 20 digits", [Read, Send("HTTP/1.1 503 No\r\nContent-Length: 99999999999999999999\r\n\r\nab"), Close],
            HttpStatus, 503, Again, null),
        new("a length and chunks",
            [Read, Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), Close],
            Delivered, 200, Succeeds, null) { Body = "ok" },
        new("an unknown transfer encoding", [Read, Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: rot13\r\n\r\nbx"), Close],
            Delivered, 200, Succeeds, null) { Body = "bx" },
        new("Retry-After of 2^31", [Read, Send("HTTP/1.1 503 No\r\nRetry-After: 2147483648\r\nContent-Length: 0\r\n\r\n"), Close],
            HttpStatus, 503, "8 attempts, next in 3600 s", null),
        new("Retry-After of 20 digits",
            [Read, Send("HTTP/1.1 503 No\r\nRetry-After: 99999999999999999999\r\nContent-Length: 0\r\n\r\n"), Close],
            HttpStatus, 503, "8 attempts, next in 3600 s", null),
        new("Retry-After with a fraction", [Read, Send("HTTP/1.1 429 No\r\nRetry-After: 120.5\r\nContent-Length: 0\r\n\r\n"), Close],
            HttpStatus, 429, "8 attempts, next in 121 s", null),
        new("a negative Retry-After", [Read, Send("HTTP/1.1 503 No\r\nRetry-After: -5\r\nContent-Length: 0\r\n\r\n"), Close],
            HttpStatus, 503, Again, null) { Headers = [("Retry-After", "-5")] },
        new("a Retry-After in words", [Read, Send("HTTP/1.1 503 No\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n"), Close],
            HttpStatus, 503, Again, null) { Headers = [("Retry-After", "soon")] },
        new("two Retry-Afters", [Read, Send("HTTP/1.1 503 No\r\nRetry-After: 30\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"), Close],
            HttpStatus, 503, "8 attempts, next in 30 s", null),
        new("Retry-After in the past",
            [Read, Send("HTTP/1.1 503 No\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n"), Close],
            HttpStatus, 503, Again, null),
        new("Retry-After far ahead, in an old format",
            [Read, Send("HTTP/1.1 503 No\r\nRetry-After: Fri Dec 31 23:59:59 2100\r\nContent-Length: 0\r\n\r\n"), Close],
            HttpStatus, 503, "8 attempts, next in 3600 s", null),

        // The body.
        new("200, and closes within the body", [Read, Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), Close],
            Delivered, 200, Succeeds, ClosedWithin) { Body = "half" },
        new("200, and resets within the body", [Read, Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"), Reset],
            Delivered, 200, Succeeds, ResetWithin),
        new("200, and hangs within the body", [Read, Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), Hang],
            Delivered, 200, Succeeds, NoEnd) { Body = "half", TimesOut = true },
        new("503 with Retry-After, and resets", [Read, Send("HTTP/1.1 503 No\r\nRetry-After: 60\r\nContent-Length: 100\r\n\r\n"), Reset],
            HttpStatus, 503, "8 attempts, next in 60 s", ResetWithin) { Headers = [("Retry-After", "60")] },
        new("503, and closes within the body",
            [Read, Send("HTTP/1.1 503 No\r\nRetry-After: 60\r\nContent-Length: 100\r\n\r\nbusy"), Close],
            HttpStatus, 503, "8 attempts, next in 60 s", ClosedWithin) { Body = "busy", Headers = [("Retry-After", "60")] },
        new("500, and hangs within the body", [Read, Send("HTTP/1.1 500 No\r\nX-A: a\r\nContent-Length: 100\r\n\r\nhalf"), Hang],
            HttpStatus, 500, Again, NoEnd) { Body = "half", Headers = [("X-A", "a")], TimesOut = true },
        new("500, and drips its body",
            [Read, Send("HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n"), Drip("ab", 5), Drip("cdefghijkl", 400)],
            HttpStatus, 500, Again, NoEnd) { TimesOut = true },
        new("404, and resets within the body", [Read, Send("HTTP/1.1 404 No\r\nContent-Length: 100\r\n\r\n"), Reset],
            HttpStatus, 404, Rejected, ResetWithin),
        new("410, and resets within the body", [Read, Send("HTTP/1.1 410 Gone\r\nContent-Length: 100\r\n\r\n"), Reset],
            HttpStatus, 410, Gone, ResetWithin),
        new("a body without length, up to the close", [Read, Send("HTTP/1.1 500 No\r\n\r\noops"), Close],
            HttpStatus, 500, Again, null) { Body = "oops" },
        new("a body without length, up to a reset", [Read, Send("HTTP/1.1 500 No\r\n\r\noops"), Reset],
            HttpStatus, 500, Again, ResetWithin),
        new("a body without end", [Read, Send("HTTP/1.1 200 OK\r\n\r\n"), Flood("aaaaaaaa")],
            Delivered, 200, Succeeds, null) { Body = new string('a', 4096) },
        new("a length of 9 EB", [Read, Send("HTTP/1.1 500 No\r\nContent-Length: 9223372036854775807\r\n\r\n"), Flood("aaaaaaaa")],
            HttpStatus, 500, Again, null) { Body = new string('a', 4096) },
        new("a chunk size of no digits", [Read, Send("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), Hang],
            HttpStatus, 503, Again, NotHttp),
        new("a chunk size of 17 digits",
            [Read, Send("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nab"), Hang],
            HttpStatus, 503, Again, NotHttp),
        new("chunks without a last one", [Read, Send("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"), Close],
            HttpStatus, 503, Again, ClosedWithin) { Body = "ab" },
        new("chunks with a trailer",
            [Read, Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: a\r\n\r\n"), Hang],
            Delivered, 200, Succeeds, null) { Body = "ok" },
        new("204 with a body", [Read, Send("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok"), Close],
            Delivered, 204, Succeeds, null) { Body = "" },

        // The next request on the same connection.
        new("more after the answer",
            [Read, Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 Forged\r\nContent-Length: 0\r\n\r\n"), Hang],
            Delivered, 202, Succeeds, null)
        {
            Webhooks = 2, Connections = 2, OnSecondConnection = Accepts,
        },
        new("Connection: close, and keeps it open",
            [Read, Send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), Read, Reset],
            Delivered, 200, Succeeds, null)
        {
            Webhooks = 2, Connections = 2,
        },
        new("closes as the second request arrives", [Read, Ok, Read, Close], Delivered, 202, Succeeds, null)
        {
            Webhooks = 2, Connections = 2, Stale = 1, OnSecondConnection = Accepts,
        },
        new("resets as the second request arrives", [Read, Ok, ReadHeaders, Reset], Delivered, 202, Succeeds, null)
        {
            Webhooks = 2, Connections = 2, Stale = 1, OnSecondConnection = Accepts,
        },
        new("closes as the second request arrives, and again", [Read, Ok, Read, Close], ConnectionFailed, null, Again, ClosedBefore)
        {
            Webhooks = 2, Connections = 2, Stale = 1, OnSecondConnection = [Read, Close],
        },
        new("breaks off its second answer", [Read, Ok, Read, Send("HTTP/1.1 20"), Close],
            ConnectionFailed, null, Again, ClosedWithin) { Webhooks = 2 },
        new("never answers the second request", [Read, Ok, Read, Hang], TimedOut, null, Again, NoAnswer) { Webhooks = 2, TimesOut = true },

        // TLS.
        new("speaks HTTP where TLS is due", [Send("HTTP/1.1 400 Bad Request\r\n\r\n"), Close],
            TlsFailure, null, Again, "no secure connection") { Secure = true },
        new("closes within the handshake", [ReadSome, Close], TlsFailure, null, Again, "during the TLS handshake") { Secure = true },
        new("resets within the handshake", [ReadSome, Reset], TlsFailure, null, Again, "during the TLS handshake") { Secure = true },
        new("hangs in the handshake", [Hang], TimedOut, null, Again, NoConnection) { Secure = true, TimesOut = true },
        new("refuses the handshake", [Send([0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28]), Close],
            TlsFailure, null, Again, "no secure connection") { Secure = true },
        new("breaks off the handshake", [Send([0x16, 0x03, 0x03, 0x00, 0x7a, 0x02, 0x00]), Close],
            TlsFailure, null, Again, "during the TLS handshake") { Secure = true },
        new("a certificate that nobody vouches for", [Handshake(Certificates.SelfSigned), Read, Ok],
            TlsFailure, null, Again, "certificate") { Secure = true },
        new("a certificate that has expired", [Handshake(Certificates.Expired), Read, Ok],
            TlsFailure, null, Again, "NotTimeValid") { Secure = true },
        new("a certificate that is not valid yet", [Handshake(Certificates.NotValidYet), Read, Ok],
            TlsFailure, null, Again, "NotTimeValid") { Secure = true },
        new("another host's certificate", [Handshake(Certificates.OfAnotherHost), Read, Ok],
            TlsFailure, null, Again, "NameMismatch") { Secure = true },
        new("wants a certificate of ours", [Handshake(Certificates.Good, wantsClientCertificate: true), Read, Ok],
            ConnectionFailed, null, Again, "before answering") { Secure = true },
        new("a good certificate", [Handshake(Certificates.Good), Read, Ok, Hang],
            Delivered, 200, Succeeds, null) { Secure = true, Body = "ok" },
        new("closes after the handshake", [Handshake(Certificates.Good), Read, Close],
            ConnectionFailed, null, Again, ClosedBefore) { Secure = true },
        new("resets within a secure answer",
            [Handshake(Certificates.Good), Read, Send("HTTP/1.1 503 No\r\nRetry-After: 60\r\nContent-Length: 100\r\n\r\n"), Reset],
            HttpStatus, 503, "8 attempts, next in 60 s", "the connection in the middle of its answer") { Secure = true },
        new("closes as the second secure request arrives", [Handshake(Certificates.Good), Read, Ok, Read, Close],
            TlsFailure, null, Again, "certificate")
        {
            // The fresh connection has a handshake of its own.
            Secure = true, Webhooks = 2, Connections = 2, Stale = 1, OnSecondConnection = [Handshake(Certificates.SelfSigned)],
        },
    ];
}
