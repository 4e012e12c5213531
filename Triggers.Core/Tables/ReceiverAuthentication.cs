namespace Triggers.Core.Tables;

/// <summary>How a receiver wants to be asked.</summary>
public enum AuthenticationType
{
    /// <summary>With a user name and a password.</summary>
    Basic,

    /// <summary>With a token that does not change.</summary>
    Bearer,

    /// <summary>With a token that an OAuth 2.0 server gives for a client's credentials.</summary>
    ClientCredentials,
}

/// <summary>What a receiver knows its caller by, beside the signature. It is kept encrypted.</summary>
public sealed record ReceiverAuthentication
{
    /// <summary>Which of the other members there are.</summary>
    public required AuthenticationType Type { get; init; }

    /// <summary>Of <see cref="AuthenticationType.Basic"/>.</summary>
    public string? Username { get; init; }

    /// <summary>Of <see cref="AuthenticationType.Basic"/>.</summary>
    public string? Password { get; init; }

    /// <summary>Of <see cref="AuthenticationType.Bearer"/>.</summary>
    public string? Token { get; init; }

    /// <summary>Where tokens are given, for <see cref="AuthenticationType.ClientCredentials"/>.</summary>
    public string? TokenUrl { get; init; }

    /// <summary>Of <see cref="AuthenticationType.ClientCredentials"/>.</summary>
    public string? ClientId { get; init; }

    /// <summary>Of <see cref="AuthenticationType.ClientCredentials"/>.</summary>
    public string? ClientSecret { get; init; }

    /// <summary>Of <see cref="AuthenticationType.ClientCredentials"/>; null for none.</summary>
    public string? Scope { get; init; }
}
