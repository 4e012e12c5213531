using System.Net;
using System.Net.Sockets;

namespace Triggers.Tests.Support;

public sealed class RedisServerTests
{
    [Fact]
    public async Task It_answers_until_it_is_killed_and_again_when_it_is_back_on_its_port_with_Lua()
    {
        await using var server = await RedisServer.StartOwnAsync();
        var endpoint = IPEndPoint.Parse(await server.ConnectionStringAsync());
        Assert.Equal("+PONG", await AskAsync(endpoint, "PING"));

        await server.StopImmediateAsync();
        await Assert.ThrowsAsync<SocketException>(() => AskAsync(endpoint, "PING"));
        await server.StartAsync();

        Assert.Equal("+PONG", await AskAsync(endpoint, "PING"));
        Assert.Equal(":42", await AskAsync(endpoint, "EVAL", "return 42", "0"));
    }

    private static async Task<string?> AskAsync(IPEndPoint endpoint, params string[] command)
    {
        using var client = new TcpClient();
        await client.ConnectAsync(endpoint, TestContext.Current.CancellationToken);
        await using var writer = new StreamWriter(client.GetStream()) { AutoFlush = true };
        using var reader = new StreamReader(client.GetStream());
        // An array of strings, each with its length.
        await writer.WriteAsync($"*{command.Length}\r\n{string.Concat(command.Select(part => $"${part.Length}\r\n{part}\r\n"))}");
        return await reader.ReadLineAsync(TestContext.Current.CancellationToken).AsTask().WaitAsync(Wait.Long);
    }
}
