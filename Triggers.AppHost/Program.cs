using Triggers.AppHost;
using Triggers.AppHost.Processes;

if (args is ["--as-nobody", var program, ..])
    return Unix.BecomeAsNobody(program, args[2..]);

var screen = new Screen(Console.Out);
try
{
    if (args.Contains("--help"))
    {
        screen.Say(Foreground.Help);
        return 0;
    }
    var settings = Settings.Read(args);
    if (!args.Contains("--guard"))
        return await Foreground.RunAsync(settings, args, screen);
    if (OperatingSystem.IsWindows())
        Triggers.AppHost.Processes.Windows.EndChildrenWithThisProcess();
    else
        Unix.StartSession();
    return await Guard.RunAsync(settings, Console.In, screen);
}
catch (Exception e) when (e is AppHostException or UnauthorizedAccessException or IOException)
{
    screen.Say(e.Message);
    return 1;
}
