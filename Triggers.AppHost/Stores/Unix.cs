using System.Runtime.InteropServices;

namespace Triggers.AppHost.Stores;

/// <summary>The few system calls that .NET has no name for. None of them is made on Windows.</summary>
internal static partial class Unix
{
    public static bool IsRoot { get; } = !OperatingSystem.IsWindows() && Environment.IsPrivilegedProcess;

    public static void GiveToNobody(string path)
    {
        var (user, group) = Nobody();
        if (chown(path, user, group) != 0)
            throw new IOException($"{path} can't be given to the user nobody (error {Marshal.GetLastPInvokeError()}).");
    }

    /// <summary>
    /// Becomes the given program, as the user nobody, in this same process. `su`, `runuser` and `setpriv` do this too, but each is
    /// missing somewhere, and some stay in between as a parent that dies without its child.
    /// </summary>
    public static int BecomeAsNobody(string program, string[] arguments)
    {
        var (user, group) = Nobody();
        if (setgroups(0, 0) != 0 || setgid(group) != 0 || setuid(user) != 0)
            Console.Error.WriteLine($"The user can't be changed to nobody (error {Marshal.GetLastPInvokeError()}).");
        else if (execv(program, [program, .. arguments, null]) != 0)
            Console.Error.WriteLine($"{program} can't be started (error {Marshal.GetLastPInvokeError()}).");
        return 126;
    }

    private static (uint User, uint Group) Nobody()
    {
        // nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin    (macOS: nobody:*:-2:-2:…)
        foreach (var line in File.ReadLines("/etc/passwd"))
            if (line.Split(':') is ["nobody", _, var user, var group, ..])
                return (unchecked((uint)long.Parse(user)), unchecked((uint)long.Parse(group)));
        return (65534, 65534);
    }

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int chown(string path, uint user, uint group);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int setgroups(nint count, nint list);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int setgid(uint group);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int setuid(uint user);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int execv(string program, string?[] arguments);
}
