using System.Numerics;
using System.Security.Cryptography;

namespace Triggers.AppHost.Processes;

/// <summary>The first key of a new system. Only the AppHost makes one up; the services are told.</summary>
internal static class AdminKey
{
    private const string Base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    /// <summary>The one it was given, else the one kept beside the data.</summary>
    public static string Of(Settings settings) =>
        settings.Given("Auth__BootstrapAdminKey") is { Length: > 0 } given
            ? given
            : PrivateFile.ReadOrCreate(Path.Combine(settings.DataDirectory, "admin-key"), Generate);

    /// <summary><c>trg_</c> and 43 letters and digits: 256 random bits.</summary>
    internal static string Generate()
    {
        var number = new BigInteger(RandomNumberGenerator.GetBytes(32), isUnsigned: true);
        return "trg_" + string.Create(43, number, static (text, rest) =>
        {
            for (var i = text.Length - 1; i >= 0; i--)
            {
                rest = BigInteger.DivRem(rest, 62, out var digit);
                text[i] = Base62[(int)digit];
            }
        });
    }
}
