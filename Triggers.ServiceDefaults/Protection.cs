using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.DataProtection;
using Microsoft.AspNetCore.DataProtection.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Npgsql;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.ServiceDefaults;

/// <summary>Settings <c>Protection:*</c>: what the keys are encrypted with that encrypt secrets in the database.</summary>
public sealed class ProtectionOptions
{
    /// <summary>
    /// Files of certificates with their RSA keys, as PEM or PFX, separated by commas. The first encrypts new keys, all of them decrypt old
    /// ones. Empty: the keys lie in the database as they are.
    /// </summary>
    public string Certificates { get; set; } = "";

    /// <summary>Of those files, where they have one.</summary>
    public string? CertificatePassword { get; set; }

    /// <summary>The certificates, in their order.</summary>
    /// <exception cref="CryptographicException">A file is none.</exception>
    /// <exception cref="IOException">A file is not there.</exception>
    internal X509Certificate2[] Load() =>
    [
        .. Certificates.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).Select(file =>
            X509Certificate2.GetCertContentType(file) == X509ContentType.Pfx
                ? X509CertificateLoader.LoadPkcs12FromFile(file, CertificatePassword)
                : CertificatePassword is null ? X509Certificate2.CreateFromPemFile(file)
                : X509Certificate2.CreateFromEncryptedPemFile(file, CertificatePassword)),
    ];
}

/// <summary>Where the key ring of Data Protection lies, so that every process reads what any other has encrypted.</summary>
internal sealed class ProtectionKeys(DbContextOptions<ProtectionKeys> options) : DbContext(options), IDataProtectionKeyContext
{
    public DbSet<DataProtectionKey> DataProtectionKeys => Set<DataProtectionKey>();
}

/// <summary>Encrypts what subscriptions know that nobody else may: signing secrets, header values, credentials of receivers.</summary>
public sealed class SecretProtector(IDataProtectionProvider protection)
{
    // No header's value has it, and no secret.
    private const string Mark = "§";

    private readonly IDataProtector _protector = protection.CreateProtector("Triggers.Subscriptions");

    /// <summary>The text, as it may be kept.</summary>
    public string Protect(string text) => Mark + _protector.Protect(text);

    /// <summary>The text that was protected; one that was not, from before there was this, as it is.</summary>
    /// <exception cref="CryptographicException">The key is not there.</exception>
    public string Unprotect(string text) =>
        text.StartsWith(Mark, StringComparison.Ordinal) ? _protector.Unprotect(text[Mark.Length..]) : text;

    /// <summary>The same; null where the key is lost that it was protected with, and for null.</summary>
    public string? TryUnprotect(string? text)
    {
        try
        {
            return text is null ? null : Unprotect(text);
        }
        catch (CryptographicException e) when (MeansLost(e))
        {
            return null;
        }
    }

    /// <summary>
    /// Whether what can't be decrypted never will be. While Postgres is away, and the keys with it, Data Protection throws the same.
    /// </summary>
    public static bool MeansLost(CryptographicException e) => e.InnerException is null or CryptographicException;

    /// <summary>Protects what is in the database and is not protected yet; answers how many subscriptions had such.</summary>
    public async Task<int> ProtectAllAsync(TriggersDbContext db, CancellationToken cancellationToken)
    {
        // A ring without a key gets one here, before several processes want one at once.
        _ = Protect("");
        var plain = await db.Database.SqlQuery<Guid>(
            $"""
            SELECT id AS "Value" FROM subscriptions
            WHERE EXISTS (SELECT FROM jsonb_array_elements(secrets) s WHERE s->>'Secret' NOT LIKE {Mark + "%"})
                OR EXISTS (SELECT FROM jsonb_each_text(headers) h WHERE h.value NOT LIKE {Mark + "%"})
            """).ToListAsync(cancellationToken);
        foreach (var id in plain)
        {
            await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
            var subscription = (await db.Subscriptions
                .FromSql($"SELECT * FROM subscriptions WHERE id = {id} FOR NO KEY UPDATE").AsTracking()
                .ToListAsync(cancellationToken)).Single();
            subscription.Secrets =
            [
                .. subscription.Secrets.Select(s => new SigningSecret
                {
                    Secret = Protect(Unprotect(s.Secret)),
                    PublicKey = s.PublicKey,
                    ExpiresAt = s.ExpiresAt,
                }),
            ];
            subscription.Headers = subscription.Headers.ToDictionary(h => h.Key, h => Protect(Unprotect(h.Value)));
            await db.SaveChangesAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
            db.ChangeTracker.Clear();
        }
        return plain.Count;
    }
}

/// <summary>Data Protection, as both services have it.</summary>
public static class ProtectionServices
{
    /// <summary>The key ring in Postgres, encrypted where <c>Protection:Certificates</c> says with what.</summary>
    public static void AddProtection(this IServiceCollection services, IConfiguration configuration)
    {
        services.AddSettings<ProtectionOptions>("Protection").Validate(CanLoad,
            "Protection:Certificates must be files of certificates with RSA keys, as PEM or PFX, and Protection:CertificatePassword their "
                + "password.");
        services.AddDbContext<ProtectionKeys>((provider, options) => options.UseTriggers(provider.GetRequiredService<NpgsqlDataSource>()));
        // Its look at the start may come before the table is there. A later failure is the request's, and is logged with it.
        services.AddLogging(
            logging => logging.AddFilter("Microsoft.AspNetCore.DataProtection.KeyManagement.KeyRingProvider", LogLevel.Critical));
        var protection = services.AddDataProtection().SetApplicationName("Triggers").PersistKeysToDbContext<ProtectionKeys>();
        var settings = configuration.GetSection("Protection").Get<ProtectionOptions>() ?? new ProtectionOptions();
        // What can't be loaded is named when settings are validated.
        if (CanLoad(settings) && settings.Load() is { Length: > 0 } certificates)
            protection.ProtectKeysWithCertificate(certificates[0]).UnprotectKeysWithAnyCertificate(certificates);
        services.AddSingleton<SecretProtector>();
    }

    private static bool CanLoad(ProtectionOptions options)
    {
        try
        {
            return options.Load().All(certificate => certificate.HasPrivateKey && certificate.GetRSAPublicKey() is not null);
        }
        catch (Exception e) when (e is CryptographicException or IOException or UnauthorizedAccessException or ArgumentException)
        {
            return false;
        }
    }
}
