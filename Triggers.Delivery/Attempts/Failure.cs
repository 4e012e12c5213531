using System.Net.Sockets;
using System.Security.Authentication;
using Polly.Timeout;
using Triggers.Core.Tables;

namespace Triggers.Delivery.Attempts;

/// <summary>
/// Says whose fault it was that an attempt came to nothing, by how far it got, and in words for the subscription's owner. Nothing
/// here blames our request: that is built before.
/// </summary>
internal static class Failure
{
    private const int MaxLength = 300;

    /// <summary>The outcome, and one line about its cause. It names no address that a name resolved to.</summary>
    public static (AttemptOutcome Outcome, string Cause) Of(Exception e, Exchange exchange, TimeSpan elapsed)
    {
        var chain = Chain(e).ToArray();
        if (chain.OfType<AddressRefusedException>().FirstOrDefault() is { } refused)
            return (AttemptOutcome.RefusedByGuard, refused.Message);
        if (chain.OfType<HttpRequestException>().FirstOrDefault(x => x.HttpRequestError == HttpRequestError.ProxyTunnelError) is { } tunnel)
            return (AttemptOutcome.ConnectionFailed, $"the egress proxy made no connection ({(int?)tunnel.StatusCode ?? 0})");
        var socket = chain.OfType<SocketException>().LastOrDefault()?.SocketErrorCode;
        if (socket == SocketError.TimedOut
            || chain.Any(x => x is TimeoutRejectedException or TimeoutException or OperationCanceledException))
            return (AttemptOutcome.Timeout, Timeout(exchange, elapsed));
        return exchange.Sent ? AfterSending(chain, socket, exchange.Answered) : BeforeSending(chain, socket);
    }

    private static string Timeout(Exchange exchange, TimeSpan elapsed) =>
        (exchange switch
        {
            { Sent: false } => "no connection",
            { Answered: false } => "no answer",
            _ => "the answer did not end",
        }) + FormattableString.Invariant($" within {elapsed.TotalSeconds:0.#} s");

    private static (AttemptOutcome, string) BeforeSending(Exception[] chain, SocketError? socket)
    {
        if (chain.Any(x => x is AuthenticationException))
            return (AttemptOutcome.TlsFailure, $"no secure connection: {Innermost(chain)}");
        return socket switch
        {
            _ when chain.Any(x => x is HttpRequestException { HttpRequestError: HttpRequestError.SecureConnectionError }) =>
                (AttemptOutcome.TlsFailure, "the receiver closed the connection during the TLS handshake"),
            SocketError.HostNotFound or SocketError.NoData => (AttemptOutcome.DnsFailure, "the host name has no address"),
            SocketError.TryAgain or SocketError.NoRecovery => (AttemptOutcome.DnsFailure, "the host name could not be resolved"),
            SocketError.ConnectionRefused => (AttemptOutcome.ConnectionRefused, "nobody listens at the receiver's port"),
            SocketError.HostUnreachable or SocketError.NetworkUnreachable or SocketError.HostDown or SocketError.NetworkDown =>
                (AttemptOutcome.ConnectionFailed, "there is no route to the receiver"),
            SocketError.ConnectionReset or SocketError.NotConnected =>
                (AttemptOutcome.ConnectionFailed, "the receiver reset the connection before it was used"),
            // In a socket's text the address is told.
            { } other => (AttemptOutcome.ConnectionFailed, $"no connection could be made ({other})"),
            null => (AttemptOutcome.ConnectionFailed, $"no connection could be made: {Innermost(chain)}"),
        };
    }

    private static (AttemptOutcome, string) AfterSending(Exception[] chain, SocketError? socket, bool answered)
    {
        var when = answered ? "in the middle of its answer" : "before answering";
        if (socket is not null)
            return (AttemptOutcome.ConnectionFailed, $"the receiver reset the connection {when}");
        if (chain.Any(x => x is HttpIOException { HttpRequestError: HttpRequestError.ResponseEnded }))
            return (AttemptOutcome.ConnectionFailed, $"the receiver closed the connection {when}");
        return answered
            ? (AttemptOutcome.InvalidResponse, $"the answer is not valid HTTP: {Innermost(chain)}")
            : (AttemptOutcome.ConnectionFailed, $"the connection broke {when}: {Innermost(chain)}");
    }

    private static IEnumerable<Exception> Chain(Exception? e)
    {
        for (; e is not null; e = e.InnerException)
            yield return e;
    }

    private static string Innermost(Exception[] chain)
    {
        var text = chain[^1].Message;
        return text.Length <= MaxLength ? text : text[..MaxLength] + "…";
    }
}
