[assembly: AssemblyFixture(typeof(Triggers.Tests.Support.KafkaServer))]

namespace Triggers.Tests.Support;

public sealed class KafkaServer
{
    private readonly string? _address = Environment.GetEnvironmentVariable("TEST_KAFKA");

    public static void SkipIfMissing() => Assert.SkipWhen(Environment.GetEnvironmentVariable("TEST_KAFKA") is null, "x");

    public Task<string> ConnectionStringAsync() => Task.FromResult(_address!);
}
