using Microsoft.AspNetCore.DataProtection;
using Microsoft.AspNetCore.DataProtection.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore;
using Npgsql;
using Triggers.Core;

namespace Triggers.Api.Idempotency;

/// <summary>Where the key ring of Data Protection lies, so that every API process reads what any other has encrypted.</summary>
internal sealed class ProtectionKeys(DbContextOptions<ProtectionKeys> options) : DbContext(options), IDataProtectionKeyContext
{
    public DbSet<DataProtectionKey> DataProtectionKeys => Set<DataProtectionKey>();
}

/// <summary>What honouring <c>Idempotency-Key</c> beside the event log takes.</summary>
internal static class IdempotencyServices
{
    public static void AddFirstAnswers(this IServiceCollection services)
    {
        services.AddDbContext<ProtectionKeys>((provider, options) => options.UseTriggers(provider.GetRequiredService<NpgsqlDataSource>()));
        // Its look at the start may come before the table is there. A later failure is the request's, and is logged with it.
        services.AddLogging(
            logging => logging.AddFilter("Microsoft.AspNetCore.DataProtection.KeyManagement.KeyRingProvider", LogLevel.Critical));
        services.AddDataProtection().SetApplicationName("Triggers").PersistKeysToDbContext<ProtectionKeys>();
        services.AddScoped<FirstAnswers>();
    }
}
