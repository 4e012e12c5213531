using Npgsql;
using Triggers.Core.Tables;

namespace Triggers.Core.State;

/// <summary>The statement on <c>receiver_certificates</c>.</summary>
public static class ReceiverCertificates
{
    /// <summary>Keeps the newest of a subscription.</summary>
    public static NpgsqlBatchCommand Keep(ReceiverCertificate certificate) => new(
        """
        INSERT INTO receiver_certificates (subscription_id, tenant_id, subject, issuer, thumbprint, not_before, expires_at)
        VALUES (@subscription, @tenant, @subject, @issuer, @thumbprint, @from, @to)
        ON CONFLICT (subscription_id) DO UPDATE SET subject = excluded.subject, issuer = excluded.issuer,
            thumbprint = excluded.thumbprint, not_before = excluded.not_before, expires_at = excluded.expires_at
        """)
    {
        Parameters =
        {
            new("subscription", certificate.SubscriptionId), new("tenant", certificate.TenantId), new("subject", certificate.Subject),
            new("issuer", certificate.Issuer), new("thumbprint", certificate.Thumbprint), new("from", certificate.NotBefore),
            new("to", certificate.ExpiresAt),
        },
    };
}
