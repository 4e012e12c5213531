namespace Triggers.Core.Tables;

/// <summary>The certificate that a receiver presented when its subscription was tested last.</summary>
public sealed record ReceiverCertificate
{
    /// <summary>Of the receiver.</summary>
    public required Guid SubscriptionId { get; init; }

    /// <summary>The tenant it belongs to.</summary>
    public required Guid TenantId { get; init; }

    /// <summary>Whom it names.</summary>
    public required string Subject { get; init; }

    /// <summary>Who vouches for it.</summary>
    public required string Issuer { get; init; }

    /// <summary>Its SHA-256, in hexadecimal.</summary>
    public required string Thumbprint { get; init; }

    /// <summary>Since when it is valid.</summary>
    public required DateTimeOffset NotBefore { get; init; }

    /// <summary>Until when.</summary>
    public required DateTimeOffset ExpiresAt { get; init; }
}
