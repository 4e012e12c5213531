using System.Runtime.InteropServices;

namespace Triggers.AppHost.Processes;

/// <summary>What Windows has instead of sessions and signals. Written from its documentation, not yet run.</summary>
internal static partial class Windows
{
    private const uint CtrlBreak = 1;
    private const int ExtendedLimitInformation = 9;
    private const uint KillOnJobClose = 0x2000;

    /// <summary>Asks a process that was started in its own group to end; .NET takes Ctrl-Break as SIGQUIT and stops in order.</summary>
    public static Task BreakAsync(int process)
    {
        _ = GenerateConsoleCtrlEvent(CtrlBreak, (uint)process);
        return Task.CompletedTask;
    }

    /// <summary>
    /// Puts this process into a job that ends all of its members when its last handle is closed. Nobody closes it: that is the end
    /// of this process, however it comes. Children are members by birth.
    /// </summary>
    public static void EndChildrenWithThisProcess()
    {
        var job = CreateJobObjectW(0, 0);
        var limits = new JobLimits { Flags = KillOnJobClose };
        if (job == 0
            || !SetInformationJobObject(job, ExtendedLimitInformation, in limits, (uint)Marshal.SizeOf<JobLimits>())
            || !AssignProcessToJobObject(job, GetCurrentProcess()))
            throw new AppHostException($"No job object could be made (error {Marshal.GetLastPInvokeError()}).");
    }

    /// <summary>JOBOBJECT_EXTENDED_LIMIT_INFORMATION.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct JobLimits
    {
        public long PerProcessUserTimeLimit;
        public long PerJobUserTimeLimit;
        public uint Flags;
        public nuint MinimumWorkingSetSize;
        public nuint MaximumWorkingSetSize;
        public uint ActiveProcessLimit;
        public nuint Affinity;
        public uint PriorityClass;
        public uint SchedulingClass;
        public ulong ReadOperations;
        public ulong WriteOperations;
        public ulong OtherOperations;
        public ulong ReadBytes;
        public ulong WriteBytes;
        public ulong OtherBytes;
        public nuint ProcessMemoryLimit;
        public nuint JobMemoryLimit;
        public nuint PeakProcessMemoryUsed;
        public nuint PeakJobMemoryUsed;
    }

    [LibraryImport("kernel32", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool GenerateConsoleCtrlEvent(uint controlEvent, uint processGroup);

    [LibraryImport("kernel32", SetLastError = true)]
    private static partial nint CreateJobObjectW(nint attributes, nint name);

    [LibraryImport("kernel32", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool SetInformationJobObject(nint job, int kind, in JobLimits limits, uint length);

    [LibraryImport("kernel32", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool AssignProcessToJobObject(nint job, nint process);

    [LibraryImport("kernel32")]
    private static partial nint GetCurrentProcess();
}
