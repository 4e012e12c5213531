using System.ComponentModel.DataAnnotations;
using System.Globalization;
using System.Net;
using Microsoft.Extensions.Options;
using Triggers.Core.Retries;
using Triggers.Core.Tables;

namespace Triggers.Delivery;

/// <summary>Settings <c>Delivery:*</c>.</summary>
public sealed class DeliveryOptions
{
    /// <summary>
    /// How many attempts one subscription may have in flight in this process to begin with. Timeouts and 429 halve that, successes add to
    /// it while all are taken, up to <see cref="MaxLaneConcurrency"/>.
    /// </summary>
    [Range(1, 1000, ErrorMessage = "Delivery:LaneConcurrency must be between 1 and 1000.")]
    public int LaneConcurrency { get; set; } = 16;

    /// <summary>How many it may become. What is less than <see cref="LaneConcurrency"/> counts as that.</summary>
    [Range(1, 1000, ErrorMessage = "Delivery:MaxLaneConcurrency must be between 1 and 1000.")]
    public int MaxLaneConcurrency { get; set; } = 64;

    /// <summary>How long a connection may take.</summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "00:01:00", ErrorMessage = "Delivery:ConnectTimeout must be between 0.1 and 60 seconds.")]
    public TimeSpan ConnectTimeout { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>How long an attempt may take, from the first step to the last byte we read.</summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "00:05:00", ErrorMessage = "Delivery:AttemptTimeout must be between 0.1 and 300 seconds.")]
    public TimeSpan AttemptTimeout { get; set; } = RetryPolicy.DefaultTimeout;

    /// <summary>How long a claimed delivery is left alone before it comes due again by itself.</summary>
    [Range(typeof(TimeSpan), "00:00:06", "00:30:00", ErrorMessage = "Delivery:Lease must be between 6 seconds and 30 minutes.")]
    public TimeSpan Lease { get; set; } = TimeSpan.FromSeconds(45);

    /// <summary>The most data of a request with several events, in bytes; one event goes whatever its size.</summary>
    [Range(1024, 16 * 1024 * 1024, ErrorMessage = "Delivery:BatchBytes must be between 1 KiB and 16 MiB.")]
    public int BatchBytes { get; set; } = 1024 * 1024;

    /// <summary>
    /// Networks outside the public internet that webhooks may be sent to, as CIDR ranges separated by commas:
    /// <c>127.0.0.0/8,::1/128</c>. Empty: public addresses only.
    /// </summary>
    public string AllowedNetworks { get; set; } = "";

    /// <summary>
    /// Networks that webhooks are never sent to, as CIDR ranges separated by commas. They win over <see cref="AllowedNetworks"/>.
    /// </summary>
    public string DeniedNetworks { get; set; } = "";

    /// <summary>Ports that webhooks may be sent to, and ranges of them, separated by commas.</summary>
    public string AllowedPorts { get; set; } = "80,443,1024-65535";

    /// <summary>
    /// An HTTP proxy that every webhook goes by, as in <c>http://proxy:3128</c>, with user name and password where it wants them. It then
    /// has the check of addresses; those that are given as numbers, and ports, are checked before. Empty: none, whatever the environment
    /// says.
    /// </summary>
    public string EgressProxy { get; set; } = "";

    /// <summary>When to try again, and when to give up.</summary>
    [ValidateObjectMembers]
    public RetryOptions Retry { get; set; } = new();

    /// <summary>When to hold what goes to a receiver that fails.</summary>
    [ValidateObjectMembers]
    public Circuits.CircuitOptions Circuit { get; set; } = new();

    /// <summary>An attempt starts only while this much of the lease is sure to be left when it ends.</summary>
    internal static readonly TimeSpan LeaseMargin = TimeSpan.FromSeconds(5);

    /// <summary>
    /// How long an attempt may take to a subscription that says so, or does not: no longer than the lease has room for.
    /// </summary>
    internal TimeSpan TimeoutOf(RetryPolicy? policy)
    {
        var room = Lease - LeaseMargin - LeaseMargin;
        return policy?.Timeout is not { } asked || asked <= AttemptTimeout ? policy?.Timeout ?? AttemptTimeout
            : asked <= room ? asked
            : room > AttemptTimeout ? room : AttemptTimeout;
    }

    /// <summary>Of the egress proxy; null without one.</summary>
    internal Uri? EgressProxyAddress =>
        Uri.TryCreate(EgressProxy, UriKind.Absolute, out var proxy) && proxy.Scheme == Uri.UriSchemeHttp && proxy.Host.Length > 0
            && proxy.PathAndQuery == "/" ? proxy : null;

    internal static bool TryParseNetworks(string text, out IReadOnlyList<IPNetwork> networks)
    {
        var parsed = new List<IPNetwork>();
        networks = parsed;
        foreach (var part in text.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            if (!IPNetwork.TryParse(part, out var network))
                return false;
            parsed.Add(network);
        }
        return true;
    }

    internal static bool TryParsePorts(string text, out IReadOnlyList<(int First, int Last)> ports)
    {
        var parsed = new List<(int, int)>();
        ports = parsed;
        foreach (var part in text.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            var ends = part.Split('-');
            if (ends.Length > 2 || !TryParsePort(ends[0], out var first) || !TryParsePort(ends[^1], out var last) || first > last)
                return false;
            parsed.Add((first, last));
        }
        return parsed.Count > 0;
    }

    private static bool TryParsePort(string text, out int port) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out port) && port is > 0 and <= ushort.MaxValue;
}

/// <summary>The rules between settings; the ranges are on the settings themselves.</summary>
[OptionsValidator]
internal sealed partial class DeliveryOptionsValidator : IValidateOptions<DeliveryOptions>;

internal sealed class DeliveryOptionsRules : IValidateOptions<DeliveryOptions>
{
    public ValidateOptionsResult Validate(string? name, DeliveryOptions options)
    {
        var failures = new List<string>();
        if (!DeliveryOptions.TryParseNetworks(options.AllowedNetworks, out _))
            failures.Add($"Delivery:AllowedNetworks must be CIDR ranges separated by commas; it is '{options.AllowedNetworks}'.");
        if (!DeliveryOptions.TryParseNetworks(options.DeniedNetworks, out _))
            failures.Add($"Delivery:DeniedNetworks must be CIDR ranges separated by commas; it is '{options.DeniedNetworks}'.");
        if (!DeliveryOptions.TryParsePorts(options.AllowedPorts, out _))
            failures.Add(
                "Delivery:AllowedPorts must be ports from 1 to 65535 and ranges, as in 80,443,1024-65535; it is "
                    + $"'{options.AllowedPorts}'.");
        if (options.EgressProxy.Length > 0 && options.EgressProxyAddress is null)
            failures.Add("Delivery:EgressProxy must be the address of an HTTP proxy, as in http://proxy:3128.");
        if (options.ConnectTimeout > options.AttemptTimeout)
            failures.Add(
                $"Delivery:ConnectTimeout ({options.ConnectTimeout}) must not exceed Delivery:AttemptTimeout ({options.AttemptTimeout}).");
        if (options.Lease <= options.AttemptTimeout + DeliveryOptions.LeaseMargin)
            failures.Add(
                $"Delivery:Lease ({options.Lease}) must exceed Delivery:AttemptTimeout ({options.AttemptTimeout}) by more than "
                    + $"{DeliveryOptions.LeaseMargin.TotalSeconds} seconds.");
        return failures.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(failures);
    }
}
